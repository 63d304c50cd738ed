// sae_rescore_f32: indices, values = of the candidates of each row the k of largest score, by value, then index; near ties about the
// last of them, or all features where candidates do not settle it, by max(x weight^T + bias, 0).
//
// slots    x           f32 [rows, width]        read
//          weight      f32 [features, width]    read, the rows that are asked for
//          bias        f32 [features]           read, as are they
//          errors      f32 [width]              read
//          candidates  u32 [rows, screened]     read; past the last feature is none
//          scores      f32 [rows, screened]     read, as bits; in descending order, what is not a number first
//          indices     u32 [rows, k]            write, and read where a row is gone through whole; 0 behind the last value above 0
//          values      f32 [rows, k]            the same, as bits; 0 behind the last value above 0; NaN where the row has a sum that is
//                                               one
// params   rows u32 @0   width u32 @4   features u32 @8   screened u32 @12 (at most 1536)   k u32 @16   pad @20
//          32 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   a row a workgroup: 16 teams of 16 invocations take a feature
//          each, every 16th column an invocation; then an invocation finds the places of every 256th candidate. A row that is gone
//          through whole has rounds: the k best so far, and as many more features as there is room for
// shared   13,348 bytes
// cost     bytes 4 * (rows * (width + 2 * screened + 2 * k) + width) + rows of weight that are touched   flops 3 * rows * width, and 2 * width for
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

var<workgroup> parts: array<f32, BLOCK>;
// Values above 0 and their features; value 0 for any other, all ones for what is not a number.
var<workgroup> found_values: array<u32, MOST>;
var<workgroup> found_features: array<u32, MOST>;
var<workgroup> largest: atomic<u32>;
// Candidates above all near ties, and those that are not below them.
var<workgroup> settled: atomic<u32>;
var<workgroup> kept: atomic<u32>;
// The scores of near ties: from, up to.
var<workgroup> limits: vec2<f32>;
// Where near ties are in the list: from, up to; and whether candidates do not settle the row.
var<workgroup> span: vec3<u32>;
var<workgroup> stop: u32;

// Whether a candidate comes before another.
fn before(i: u32, value: u32, feature: u32) -> bool {
    return found_values[i] > value || (found_values[i] == value && found_features[i] < feature);
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

    // which scores are near ties, and whether that settles the row
    if lane == 0u {
        let size = atomicLoad(&largest);
        let twice = 2.0 * sqrt(parts[0]);
        let kth = scores[list + params.k - 1u];
        let edge = bitcast<f32>(select(0u, kth, kth < NEGATIVE));
        limits = vec2(edge - twice, edge + twice);
        // what is not finite comes first, but for negative infinity, which is no candidate
        let finite = (scores[list] & ~NEGATIVE) < INFINITY || candidates[list] >= params.features;
        let known = (size == 0u || (size >= SMALLEST && size < LARGEST)) && finite;
        let last = list + params.screened - 1u;
        let complete = params.screened >= params.features || candidates[last] >= params.features
            || bitcast<f32>(scores[last]) < limits.x;
        span.z = select(1u, 0u, known && complete);
    }
    workgroupBarrier();
    for (var i = lane; i < params.screened; i += BLOCK) {
        let score = bitcast<f32>(scores[list + i]);
        if candidates[list + i] < params.features && score >= limits.x {
            atomicAdd(&kept, 1u);
            if score > limits.y {
                atomicAdd(&settled, 1u);
            }
        }
    }
    workgroupBarrier();
    if lane == 0u {
        span.x = atomicLoad(&settled);
        span.y = atomicLoad(&kept);
    }
    let found = workgroupUniformLoad(&span);
    let whole = found.z == 1u;
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
                let bits = bitcast<u32>(sum + bias[feature]);
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
