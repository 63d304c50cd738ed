// sae_rescore_f32: indices, values = of the candidates of each row the k largest max(x weight^T + bias, 0), by value, then index.
//
// slots    x           f32 [rows, width]        read
//          weight      f32 [features, width]    read, the rows that are asked for
//          bias        f32 [features]           read, as are they
//          candidates  u32 [rows, screened]     read; past the last feature is none
//          indices     u32 [rows, k]            write; 0 behind the last value above 0
//          values      f32 [rows, k]            write, as bits; 0 behind the last value above 0; NaN where the row has a sum that is one
// params   rows u32 @0   width u32 @4   features u32 @8   screened u32 @12 (at most 1536)   k u32 @16   pad @20
//          32 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   a row a workgroup: 16 teams of 16 invocations take a candidate
//          each, every 16th column an invocation; then an invocation finds the places of every 256th candidate
// shared   13,312 bytes
// cost     bytes 4 * rows * (width + screened + 2 * k) + rows of weight that are touched   flops 2 * rows * screened * width
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
@group(0) @binding(3) var<storage, read>       candidates: array<u32>;
@group(0) @binding(4) var<storage, read_write> indices: array<u32>;
@group(0) @binding(5) var<storage, read_write> values: array<u32>;
@group(0) @binding(6) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
// Invocations of a team, and teams.
const TEAM: u32 = 16u;
const MOST: u32 = 1536u;
const INFINITY: u32 = 0x7f800000u;
const NOT_A_NUMBER: u32 = 0x7fc00000u;

var<workgroup> parts: array<f32, BLOCK>;
// Values above 0 and their features; value 0 for any other, all ones for what is not a number.
var<workgroup> found_values: array<u32, MOST>;
var<workgroup> found_features: array<u32, MOST>;

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
    let own = lane % TEAM;
    for (var first = 0u; first < params.screened; first += BLOCK / TEAM) {
        let i = first + lane / TEAM;
        var feature = params.features;
        if i < params.screened {
            feature = candidates[row * params.screened + i];
        }
        var sum = 0.0;
        if feature < params.features {
            for (var c = own; c < params.width; c += TEAM) {
                sum = fma(x[row * params.width + c], weight[feature * params.width + c], sum);
            }
        }
        parts[lane] = sum;
        workgroupBarrier();
        if own == 0u && i < params.screened {
            var value = 0u;
            if feature < params.features {
                var whole = parts[lane];
                for (var j = 1u; j < TEAM; j += 1u) {
                    whole += parts[lane + j];
                }
                let bits = bitcast<u32>(whole + bias[feature]);
                if (bits & 0x7fffffffu) > INFINITY {
                    value = 0xffffffffu;
                } else if bits < 0x80000000u {
                    value = bits;
                }
            }
            found_values[i] = value;
            found_features[i] = feature;
        }
        workgroupBarrier();
    }

    // every invocation goes through all candidates once or more: how many are above 0, whether one is not a number
    var above = 0u;
    var spoilt = false;
    for (var i = lane; i < max(params.screened, BLOCK); i += BLOCK) {
        var value = 0u;
        var feature = 0u;
        if i < params.screened {
            value = found_values[i];
            feature = found_features[i];
        }
        var place = 0u;
        above = 0u;
        for (var j = 0u; j < params.screened; j += 1u) {
            let other = found_values[j];
            if other > 0u {
                above += 1u;
            }
            if other == 0xffffffffu {
                spoilt = true;
            }
            if other > value || (other == value && found_features[j] < feature) {
                place += 1u;
            }
        }
        if value > 0u && !spoilt && place < params.k {
            indices[row * params.k + place] = feature;
            values[row * params.k + place] = value;
        }
    }
    for (var place = lane; place < params.k; place += BLOCK) {
        if spoilt || place >= above {
            indices[row * params.k + place] = 0u;
            values[row * params.k + place] = select(0u, NOT_A_NUMBER, spoilt);
        }
    }
}
