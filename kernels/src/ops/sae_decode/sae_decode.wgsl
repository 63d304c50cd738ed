// sae_decode_f32: y[r] = b_dec + sum over i of values[r, i] * w_dec[indices[r, i]] (- minus[r]), in order of i.
//
// slots    indices  u32 [rows, k]              read; past the last row of w_dec adds nothing
//          values   f32 [rows, k]              read; 0 adds nothing
//          w_dec    f32 [features, width]      read, the rows that are asked for
//          b_dec    f32 [width]                read
//          minus    f32 [rows, width]          read where has_minus is 1, else not touched
//          y        f32 [rows, width]          write; may not be minus (WebGPU forbids aliasing)
// params   rows u32 @0   width u32 @4   features u32 @8   k u32 @12   has_minus u32 @16   pad @20      32 bytes, uniform
// launch   grid ceil(rows * width / 256), folded over x and y   workgroup (256, 1, 1)   one value per invocation
// shared   none
// cost     bytes 4 * (rows * (2 * k + width * (1 + minus)) + width) + rows of w_dec that are touched   flops 2 * rows * k * width
// numerics f32; from b_dec in order of i, fused or not, as the device has it; minus last.

struct Params {
    rows: u32,
    width: u32,
    features: u32,
    k: u32,
    has_minus: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read>       indices: array<u32>;
@group(0) @binding(1) var<storage, read>       values: array<f32>;
@group(0) @binding(2) var<storage, read>       w_dec: array<f32>;
@group(0) @binding(3) var<storage, read>       b_dec: array<f32>;
@group(0) @binding(4) var<storage, read>       minus: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn sae_decode_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * BLOCK + lane;
    if at >= params.rows * params.width {
        return;
    }
    let row = at / params.width;
    let col = at % params.width;
    var sum = b_dec[col];
    for (var i = row * params.k; i < (row + 1u) * params.k; i += 1u) {
        let feature = indices[i];
        let value = values[i];
        // both zeros, by their bits: a comparison may drop NaN
        if feature < params.features && (bitcast<u32>(value) & 0x7fffffffu) != 0u {
            sum = fma(value, w_dec[feature * params.width + col], sum);
        }
    }
    if params.has_minus == 1u {
        sum -= minus[at];
    }
    y[at] = sum;
}
