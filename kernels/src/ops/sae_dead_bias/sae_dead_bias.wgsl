// sae_dead_bias_f32: y[f] = history[f, 1] >= after ? bias[f] : -infinity.
//
// slots    bias     f32 [features]      read, as bits
//          history  u32 [features, 3]   read; column 1
//          y        f32 [features]      write, as bits
// params   features u32 @0   after u32 @4   pad @8      16 bytes, uniform
// launch   grid ceil(features / 256), folded over x and y   workgroup (256, 1, 1)   one value an invocation
// shared   none
// cost     bytes 12 * features   flops 0
// numerics copies.

struct Params {
    features: u32,
    after: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       bias: array<u32>;
@group(0) @binding(1) var<storage, read>       history: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
const HISTORY: u32 = 3u;
// the bits of f32
const MINUS_INFINITY: u32 = 0xff800000u;

@compute @workgroup_size(BLOCK)
fn sae_dead_bias_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let f = (group.y * groups.x + group.x) * BLOCK + lane;
    if f >= params.features {
        return;
    }
    y[f] = select(MINUS_INFINITY, bias[f], history[f * HISTORY + 1u] >= params.after);
}
