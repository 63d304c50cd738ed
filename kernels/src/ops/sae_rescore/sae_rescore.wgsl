// sae_rescore_f32: indices, values = of the candidates of each row the k of largest score, by value, then index; near ties about the
// last of them, or all features where candidates do not settle it, by max(x weight^T + bias, 0).
//
// slots    x           f32 [rows, width]        read
//          weight      f32 [features, width]    read, the rows that are asked for
//          bias        f32 [features]           read, as are they
//          errors      f32 [width + features]   read; of columns, then scales of features
//          candidates  u32 [rows, screened]     read; past the last feature is none
//          scores      f32 [rows, screened]     read, as bits; in descending order, what is not a number first
//          indices     u32 [rows, k]            write, and read where a row is gone through whole; 0 behind the last value above 0
//          values      f32 [rows, k]            the same, as bits; 0 behind the last value above 0; NaN where the row has a sum that is
//                                               one
// params   rows u32 @0   width u32 @4   features u32 @8   screened u32 @12 (at most 1536)   k u32 @16   pad @20
//          32 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   a row a workgroup: 16 teams of 16 invocations take a feature
//          each, every 16th column an invocation; where one's score was further off than near ties are taken to be, that is done again
//          with more of them; then an invocation finds the places of every 256th candidate. A row that is gone through whole has
//          rounds: the k best so far, and as many more features as there is room for
// shared   13,356 bytes
// cost     bytes 4 * (rows * (width + 2 * screened + 2 * k) + width + features) + rows of weight that are touched   flops 3 * rows * width, and 2 * width for
//          each near tie
// numerics f32; 16 sums over every 16th column in order, which are added in order, the bias last. Values above 0 are in the order
//          of their bits.

struct Params {
    rows: u32,
    width: u32,
    features: u32,
    screened: u32,
    k: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       weight: array<f32>;
@group(0) @binding(2) var<storage, read>       bias: array<f32>;
@group(0) @binding(3) var<storage, read>       errors: array<f32>;
@group(0) @binding(4) var<storage, read>       candidates: array<u32>;
@group(0) @binding(5) var<storage, read>       scores: array<u32>;
@group(0) @binding(6) var<storage, read_write> indices: array<u32>;
@group(0) @binding(7) var<storage, read_write> values: array<u32>;
@group(0) @binding(8) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
// Invocations of a team, and teams.
const TEAM: u32 = 16u;
const MOST: u32 = 1536u;
const INFINITY: u32 = 0x7f800000u;
const NOT_A_NUMBER: u32 = 0x7fc00000u;
const NEGATIVE: u32 = 0x80000000u;
// 2^-50 and 2^50
const SMALLEST: u32 = 0x26800000u;
const LARGEST: u32 = 0x58800000u;
// How many times as far as near ties show scores to be off, reach is at least.
const SHOWN: f32 = 1.25;

var<workgroup> parts: array<f32, BLOCK>;
// Values above 0 and their features; value 0 for any other, all ones for what is not a number.
var<workgroup> found_values: array<u32, MOST>;
var<workgroup> found_features: array<u32, MOST>;
var<workgroup> largest: atomic<u32>;
// The first candidate that is not above near ties, and the one behind the last that is not below them.
var<workgroup> first_near: atomic<u32>;
var<workgroup> behind_near: atomic<u32>;
// How far the score of a near tie was off, by its scale, as bits.
var<workgroup> shown: atomic<u32>;
// The score of the last place, how far scores are taken to be off, and whether that is a number to go by.
var<workgroup> edge: f32;
var<workgroup> reach: f32;
var<workgroup> known: bool;
// Where near ties are in the list: from, up to; and whether candidates do not settle the row.
var<workgroup> span: vec3<u32>;
var<workgroup> stop: u32;

// Whether a candidate comes before another.
fn before(i: u32, value: u32, feature: u32) -> bool {
    return found_values[i] > value || (found_values[i] == value && found_features[i] < feature);
}

// By how much more than others the score of a feature may be off.
fn scale(feature: u32) -> f32 {
    if feature < params.features {
        return errors[params.width + feature];
    }
    return 1.0;
}

// Sets where near ties are in the list of a row, and whether that settles it.
fn find_near_ties(list: u32, lane: u32) {
    if lane == 0u {
        atomicStore(&first_near, params.screened);
        atomicStore(&behind_near, 0u);
        atomicStore(&shown, 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < params.screened; i += BLOCK) {
        let score = bitcast<f32>(scores[list + i]);
        let near = fma(reach, scale(candidates[list + i]), reach);
        if score <= edge + near {
            atomicMin(&first_near, i);
        }
        if score >= edge - near {
            atomicMax(&behind_near, i + 1u);
        }
    }
    workgroupBarrier();
    if lane == 0u {
        let last = list + params.screened - 1u;
        let complete = params.screened >= params.features || bitcast<f32>(scores[last]) < edge - (reach + reach);
        let first = atomicLoad(&first_near);
        span = vec3(first, max(first, atomicLoad(&behind_near)), select(1u, 0u, known && complete));
    }
}

@compute @workgroup_size(BLOCK)
fn sae_rescore_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let list = row * params.screened;
    let written = row * params.k;

    // the length of x errors, and the largest of them
    var most = 0u;
    var squares = 0.0;
    for (var c = lane; c < params.width; c += BLOCK) {
        let v = x[row * params.width + c] * errors[c];
        most = max(most, bitcast<u32>(v) & ~NEGATIVE);
        squares = fma(v, v, squares);
    }
    atomicMax(&largest, most);
    parts[lane] = squares;
    workgroupBarrier();
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        if lane < half {
            parts[lane] += parts[lane + half];
        }
        workgroupBarrier();
    }

    if lane == 0u {
        let size = atomicLoad(&largest);
        let kth = scores[list + params.k - 1u];
        edge = bitcast<f32>(select(0u, kth, kth < NEGATIVE));
        reach = sqrt(parts[0]);
        // what is not finite comes first, but for negative infinity, which is no candidate
        let finite = (scores[list] & ~NEGATIVE) < INFINITY || candidates[list] >= params.features;
        known = (size == 0u || (size >= SMALLEST && size < LARGEST)) && finite;
    }
    workgroupBarrier();
    find_near_ties(list, lane);
    var found = workgroupUniformLoad(&span);
    var whole = found.z == 1u;
    var start = select(found.x, 0u, whole);
    var end = select(found.y, min(MOST, params.features), whole);
    // the first feature of a round, and how many of those that are known are above 0
    var first_feature = 0u;
    var above = start;

    let own = lane % TEAM;
    loop {
        for (var i = lane; i < start; i += BLOCK) {
            if whole {
                found_values[i] = values[written + i];
                found_features[i] = indices[written + i];
            } else {
                found_values[i] = scores[list + i];
                found_features[i] = candidates[list + i];
            }
        }
        for (var first = start; first < end; first += BLOCK / TEAM) {
            let i = first + lane / TEAM;
            var feature = params.features;
            if i < end {
                if whole {
                    feature = first_feature + i - start;
                } else {
                    feature = candidates[list + i];
                }
            }
            var sum = 0.0;
            if feature < params.features {
                for (var c = own; c < params.width; c += TEAM) {
                    sum = fma(x[row * params.width + c], weight[feature * params.width + c], sum);
                }
            }
            parts[lane] = sum;
            workgroupBarrier();
            if own == 0u && i < end {
                var value = 0u;
                var sum = parts[lane];
                for (var j = 1u; j < TEAM; j += 1u) {
                    sum += parts[lane + j];
                }
                var bits = NEGATIVE;
                if feature < params.features {
                    let computed = sum + bias[feature];
                    bits = bitcast<u32>(computed);
                    if !whole {
                        let off = abs(computed - bitcast<f32>(scores[list + i])) / scale(feature);
                        atomicMax(&shown, bitcast<u32>(off));
                    }
                }
                if (bits & ~NEGATIVE) > INFINITY {
                    value = 0xffffffffu;
                } else if bits < NEGATIVE {
                    value = bits;
                }
                found_values[i] = value;
                found_features[i] = feature;
            }
            workgroupBarrier();
        }

        // scores that are further off than was taken make more of them near ties; what is not finite, all features
        if !whole {
            if lane == 0u {
                let off = atomicLoad(&shown);
                known = off < INFINITY;
                let wider = SHOWN * bitcast<f32>(off);
                stop = select(0u, 1u, !known || wider > reach);
                reach = max(reach, wider);
            }
            if workgroupUniformLoad(&stop) == 1u {
                find_near_ties(list, lane);
                found = workgroupUniformLoad(&span);
                whole = found.z == 1u;
                start = select(found.x, 0u, whole);
                end = select(found.y, min(MOST, params.features), whole);
                above = start;
                continue;
            }
        }
        workgroupBarrier();

        // every invocation goes through what was computed: how many are above 0, whether one is not a number
        var spoilt = false;
        for (var j = start; j < end; j += 1u) {
            if found_values[j] > 0u {
                above += 1u;
            }
            if found_values[j] == 0xffffffffu {
                spoilt = true;
            }
        }
        // what was known is in order, so that only what was computed comes between
        for (var i = lane; i < end; i += BLOCK) {
            let value = found_values[i];
            let feature = found_features[i];
            var place = i;
            if i >= start {
                place = 0u;
                for (var j = 0u; j < start; j += 1u) {
                    if before(j, value, feature) {
                        place += 1u;
                    }
                }
            }
            for (var j = start; j < end; j += 1u) {
                if before(j, value, feature) {
                    place += 1u;
                }
            }
            if value > 0u && !spoilt && place < params.k {
                indices[written + place] = feature;
                values[written + place] = value;
            }
        }
        for (var place = lane; place < params.k; place += BLOCK) {
            if spoilt || place >= above {
                indices[written + place] = 0u;
                values[written + place] = select(0u, NOT_A_NUMBER, spoilt);
            }
        }
        if lane == 0u {
            stop = select(0u, 1u, spoilt);
        }
        storageBarrier();
        first_feature += end - start;
        if !whole || first_feature >= params.features || workgroupUniformLoad(&stop) == 1u {
            break;
        }
        above = min(above, params.k);
        start = params.k;
        end = start + min(MOST - start, params.features - first_feature);
    }
}
