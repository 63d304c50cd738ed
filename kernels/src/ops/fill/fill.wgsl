// fill_f32: y = value.
//
// slots    y  f32 [elements]   write
// params   elements u32 @0   value f32 @4   pad @8      16 bytes, uniform
// launch   grid ceil(elements / 256), folded over x and y   workgroup (256, 1, 1)   one value per invocation
// shared   none
// cost     bytes 4 * elements   flops 0
// numerics exact.

struct Params {
    elements: u32,
    value: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn fill_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.elements {
        return;
    }
    y[i] = params.value;
}
