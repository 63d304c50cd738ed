// sae_add_threshold_f32: y[r, j] = values[r, j] + threshold[indices[r, j]] where values[r, j] is above 0, else values[r, j].
//
// slots    indices    u32 [rows, k]     read; past the last threshold as if the value were not above 0
//          values     f32 [rows, k]     read, as bits
//          threshold  f32 [features]    read
//          y          f32 [rows, k]     write, as bits
// params   rows u32 @0   k u32 @4   features u32 @8   pad @12      16 bytes, uniform
// launch   grid ceil(rows * k / 256), folded over x and y   workgroup (256, 1, 1)   one value an invocation
// shared   none
// cost     bytes 12 * rows * k + 4 * features   flops rows * k
// numerics f32; one sum. What is not above 0, and what is no number, is copied.

struct Params {
    rows: u32,
    k: u32,
    features: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       indices: array<u32>;
@group(0) @binding(1) var<storage, read>       values: array<u32>;
@group(0) @binding(2) var<storage, read>       threshold: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
// the bits of f32
const INFINITY: u32 = 0x7f800000u;

@compute @workgroup_size(BLOCK)
fn sae_add_threshold_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * BLOCK + lane;
    if at >= params.rows * params.k {
        return;
    }
    var bits = values[at];
    let feature = indices[at];
    // above 0: by the bits, since a comparison may drop NaN
    if bits != 0u && bits <= INFINITY && feature < params.features {
        bits = bitcast<u32>(bitcast<f32>(bits) + threshold[feature]);
    }
    y[at] = bits;
}
