// scale_f32: y = factor * x; a factor of exactly 1 copies bits.
//
// slots    x  f32 [elements]   read
//          y  f32 [elements]   write; may not be x (WebGPU forbids aliasing a writable binding)
// params   elements u32 @0   factor f32 @4   pad @8      16 bytes, uniform
// launch   grid ceil(elements / 256), folded over x and y   workgroup (256, 1, 1)   one value per invocation
// shared   none
// cost     bytes 8 * elements   flops elements
// numerics f32; one rounded multiplication.

struct Params {
    elements: u32,
    factor: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn scale_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.elements {
        return;
    }
    y[i] = select(params.factor * x[i], x[i], params.factor == 1.0);
}
