// sae_encode_top_k_f32: indices, values = the k largest max(x weight^T + bias, 0) of each row, by value, then index.
//
// slots    x        f32 [rows, width]        read
//          weight   f32 [features, width]    read
//          bias     f32 [features]           read
//          indices  u32 [rows, parts, k]     write; 0 behind the last value above 0; gone on from where first_feature is above 0
//          values   f32 [rows, parts, k]     write, as bits; 0 behind the last value above 0; NaN where the part has a sum that is one
// params   rows u32 @0   width u32 @4   features u32 @8   k u32 @12 (at most 1024)   first_feature u32 @16
//          span u32 @20 (features of a part, of which there are ceil(features / span))   pad @24      32 bytes, uniform
// launch   grid parts * ceil(rows / 64), folded over x and y   workgroup (256, 1, 1)   64 rows of a part a workgroup, by features in
//          tiles of 64, 4 by 4 values per invocation; columns in tiles of 16. Mesa's software adapter ends loops after 65,535 turns of an
//          invocation in all: launches of many features are not for it
// shared   16,060 bytes
// cost     bytes 4 * (rows * (width + 2 * k) + features * (width + 1))   flops 2 * rows * features * width
// numerics f32; a value is summed over columns in order, the bias last. Values are compared by their bits: those above 0 are in
//          the order of their bits. The k best of a row lie sorted in indices and values; up to 12 that pass the last of them
//          wait in shared memory, and are merged in when a thirteenth comes, which then tries again. So nothing is lost.

struct Params {
    rows: u32,
    width: u32,
    features: u32,
    k: u32,
    first_feature: u32,
    span: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       weight: array<f32>;
@group(0) @binding(2) var<storage, read>       bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;
@group(0) @binding(4) var<storage, read_write> values: array<u32>;
@group(0) @binding(5) var<uniform>             params: Params;

// Values of an invocation along rows, and along features.
const OWNED: u32 = 4u;
// Invocations along rows, and along features; also the columns of a tile.
const SIDE: u32 = 16u;
const BLOCK: u32 = SIDE * SIDE;
const TILE: u32 = SIDE * OWNED;
// Places of a row that an invocation moves at most.
const MOVED: u32 = 4u;
// Features of a row that wait.
const PENDING: u32 = 12u;
const INFINITY: u32 = 0x7f800000u;
const NOT_A_NUMBER: u32 = 0x7fc00000u;

// Column c of row (or feature) i is at c * PITCH + i: odd, so that neighbouring columns are in different banks.
const PITCH: u32 = TILE + 1u;
var<workgroup> x_tile: array<f32, SIDE * PITCH>;
var<workgroup> weight_tile: array<f32, SIDE * PITCH>;
// What waits, of every row.
var<workgroup> pending_values: array<u32, TILE * PENDING>;
var<workgroup> pending_features: array<u32, TILE * PENDING>;
// How many were offered to a row since its last merge: more than PENDING where some could not wait.
var<workgroup> offered: array<atomic<u32>, TILE>;
// Places of a row that are taken; the value and the feature in the last one, 0 where it is free.
var<workgroup> taken: array<u32, TILE>;
var<workgroup> least_value: array<u32, TILE>;
var<workgroup> least_feature: array<u32, TILE>;
// 1 where a row has a sum that is not a number.
var<workgroup> spoilt: array<atomic<u32>, TILE>;
// Rows to merge.
var<workgroup> queue: array<u32, TILE>;
var<workgroup> queued: atomic<u32>;
var<workgroup> turns: u32;
// before[c]: how many of the row's places have c pending features before them.
var<workgroup> before: array<atomic<u32>, PENDING + 1u>;

// Parts, and the number of the workgroup's own.
var<private> parts: u32;
var<private> part: u32;

/// Where the places of a row are.
fn list(row: u32) -> u32 {
    return (row * parts + part) * params.k;
}

/// Whether a feature comes before another, both with values above 0 as bits.
fn precedes(value: u32, feature: u32, other_value: u32, other_feature: u32) -> bool {
    return value > other_value || (value == other_value && feature < other_feature);
}

/// Merges what waits for a row into its places.
fn merge(row: u32, first_row: u32, lane: u32) {
    let first = list(first_row + row);
    let waiting = min(atomicLoad(&offered[row]), PENDING);
    let old = taken[row];
    if lane <= PENDING {
        atomicStore(&before[lane], 0u);
    }
    workgroupBarrier();
    var moved_values: array<u32, MOVED>;
    var moved_features: array<u32, MOVED>;
    var shifts: array<u32, MOVED>;
    for (var i = 0u; i < MOVED; i += 1u) {
        let place = lane + i * BLOCK;
        if place < old {
            let value = values[first + place];
            let feature = indices[first + place];
            var shift = 0u;
            for (var j = 0u; j < waiting; j += 1u) {
                let at = row * PENDING + j;
                if precedes(pending_values[at], pending_features[at], value, feature) {
                    shift += 1u;
                }
            }
            moved_values[i] = value;
            moved_features[i] = feature;
            shifts[i] = shift;
            atomicAdd(&before[shift], 1u);
        }
    }
    storageBarrier();
    workgroupBarrier();
    for (var i = 0u; i < MOVED; i += 1u) {
        let place = lane + i * BLOCK;
        if place < old && shifts[i] > 0u && place + shifts[i] < params.k {
            values[first + place + shifts[i]] = moved_values[i];
            indices[first + place + shifts[i]] = moved_features[i];
        }
    }
    if lane < waiting {
        let own = row * PENDING + lane;
        var place = 0u;
        for (var j = 0u; j < waiting; j += 1u) {
            let at = row * PENDING + j;
            if precedes(pending_values[at], pending_features[at], pending_values[own], pending_features[own]) {
                place += 1u;
            }
        }
        // places before this one have at most as many pending features before them
        let rank = place;
        for (var c = 0u; c <= rank; c += 1u) {
            place += atomicLoad(&before[c]);
        }
        if place < params.k {
            values[first + place] = pending_values[own];
            indices[first + place] = pending_features[own];
        }
    }
    storageBarrier();
    workgroupBarrier();
    if lane == 0u {
        taken[row] = min(old + waiting, params.k);
        atomicStore(&offered[row], 0u);
        if taken[row] == params.k {
            least_value[row] = values[first + params.k - 1u];
            least_feature[row] = indices[first + params.k - 1u];
        }
    }
}

/// Merges every row that was offered more than `allowed`; whether there was one.
fn merge_beyond(allowed: u32, first_row: u32, lane: u32) -> bool {
    if lane == 0u {
        atomicStore(&queued, 0u);
    }
    workgroupBarrier();
    if lane < TILE && atomicLoad(&offered[lane]) > allowed {
        queue[atomicAdd(&queued, 1u)] = lane;
    }
    workgroupBarrier();
    if lane == 0u {
        turns = atomicLoad(&queued);
    }
    let count = workgroupUniformLoad(&turns);
    for (var i = 0u; i < count; i += 1u) {
        merge(workgroupUniformLoad(&queue[i]), first_row, lane);
    }
    workgroupBarrier();
    return count > 0u;
}

@compute @workgroup_size(BLOCK)
fn sae_encode_top_k_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = max(1u, (params.features + params.span - 1u) / params.span);
    let number = group.y * groups.x + group.x;
    let own_part = number % count;
    parts = count;
    part = own_part;
    let first_row = number / count * TILE;
    if first_row >= params.rows {
        return;
    }
    let end = min(params.features, (own_part + 1u) * params.span);
    // neighbours in a row of the product are neighbours among the invocations
    let own_row = lane / SIDE;
    let own_feature = lane % SIDE;

    if lane < TILE {
        atomicStore(&offered[lane], 0u);
        atomicStore(&spoilt[lane], 0u);
        taken[lane] = 0u;
        least_value[lane] = 0u;
        least_feature[lane] = 0u;
        if params.first_feature > 0u && first_row + lane < params.rows {
            let first = list(first_row + lane);
            if values[first] > INFINITY {
                atomicStore(&spoilt[lane], 1u);
            } else {
                var places = 0u;
                while places < params.k && values[first + places] > 0u {
                    places += 1u;
                }
                taken[lane] = places;
                if places == params.k {
                    least_value[lane] = values[first + params.k - 1u];
                    least_feature[lane] = indices[first + params.k - 1u];
                }
            }
        }
    }
    workgroupBarrier();

    for (var first_feature = own_part * params.span; first_feature < end; first_feature += TILE) {
        var sums: array<array<f32, OWNED>, OWNED>;
        for (var i = 0u; i < OWNED; i += 1u) {
            for (var j = 0u; j < OWNED; j += 1u) {
                sums[i][j] = 0.0;
            }
        }
        for (var first = 0u; first < params.width; first += SIDE) {
            // neighbours load neighbouring columns; past an edge there are zeros
            let c = first + lane % SIDE;
            for (var i = lane / SIDE; i < TILE; i += SIDE) {
                let at = lane % SIDE * PITCH + i;
                let row = first_row + i;
                let feature = first_feature + i;
                var x_value = 0.0;
                if row < params.rows && c < params.width {
                    x_value = x[row * params.width + c];
                }
                var weight_value = 0.0;
                if feature < end && c < params.width {
                    weight_value = weight[feature * params.width + c];
                }
                x_tile[at] = x_value;
                weight_tile[at] = weight_value;
            }
            workgroupBarrier();
            for (var k = 0u; k < SIDE; k += 1u) {
                for (var i = 0u; i < OWNED; i += 1u) {
                    let x_value = x_tile[k * PITCH + own_row + i * SIDE];
                    for (var j = 0u; j < OWNED; j += 1u) {
                        sums[i][j] = fma(x_value, weight_tile[k * PITCH + own_feature + j * SIDE], sums[i][j]);
                    }
                }
            }
            workgroupBarrier();
        }

        // values above 0, as bits, that are yet to be offered; else 0
        var left: array<array<u32, OWNED>, OWNED>;
        for (var i = 0u; i < OWNED; i += 1u) {
            let row = own_row + i * SIDE;
            for (var j = 0u; j < OWNED; j += 1u) {
                let feature = first_feature + own_feature + j * SIDE;
                left[i][j] = 0u;
                if first_row + row < params.rows && feature < end {
                    let bits = bitcast<u32>(sums[i][j] + bias[feature]);
                    if (bits & 0x7fffffffu) > INFINITY {
                        atomicStore(&spoilt[row], 1u);
                    } else if bits < 0x80000000u {
                        left[i][j] = bits;
                    }
                }
            }
        }
        var again = true;
        while again {
            for (var i = 0u; i < OWNED; i += 1u) {
                let row = own_row + i * SIDE;
                for (var j = 0u; j < OWNED; j += 1u) {
                    let feature = params.first_feature + first_feature + own_feature + j * SIDE;
                    let value = left[i][j];
                    if value == 0u {
                        continue;
                    }
                    if !precedes(value, feature, least_value[row], least_feature[row]) {
                        left[i][j] = 0u;
                        continue;
                    }
                    let place = atomicAdd(&offered[row], 1u);
                    if place < PENDING {
                        pending_values[row * PENDING + place] = value;
                        pending_features[row * PENDING + place] = feature;
                        left[i][j] = 0u;
                    }
                }
            }
            workgroupBarrier();
            again = merge_beyond(PENDING, first_row, lane);
        }
    }
    merge_beyond(0u, first_row, lane);

    for (var i = lane; i < TILE * params.k; i += BLOCK) {
        let row = i / params.k;
        if first_row + row >= params.rows {
            break;
        }
        let at = list(first_row + row) + i % params.k;
        if atomicLoad(&spoilt[row]) == 1u {
            values[at] = NOT_A_NUMBER;
            indices[at] = 0u;
        } else if i % params.k >= taken[row] {
            values[at] = 0u;
            indices[at] = 0u;
        }
    }
}
