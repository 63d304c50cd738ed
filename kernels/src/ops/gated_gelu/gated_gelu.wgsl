// gated_gelu_f32: y = a / 2 * (1 + tanh(sqrt(2 / pi) * (a + 0.044715 a^3))) * b.
//
// slots    a  f32 [elements]   read
//          b  f32 [elements]   read; may be a
//          y  f32 [elements]   write; neither a nor b (WebGPU forbids aliasing)
// params   elements u32 @0   pad @4      16 bytes, uniform
// launch   grid ceil(elements / 256), folded over x and y   workgroup (256, 1, 1)   one value per invocation
// shared   none
// cost     bytes 12 * elements   flops 9 * elements
// numerics f32; as a * b / (1 + e^-z), z = 2 sqrt(2 / pi) (a + 0.044715 a^3), which has no cancellation; -z no larger
//          than 80, where e^80 is still finite.

struct Params {
    elements: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read>       a: array<f32>;
@group(0) @binding(1) var<storage, read>       b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
// -2 sqrt(2 / pi)
const FACTOR: f32 = -1.5957691;

@compute @workgroup_size(BLOCK)
fn gated_gelu_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.elements {
        return;
    }
    let gate = a[i];
    // past 20 either way the result is what it is there, and a^3 is not infinite
    let near = clamp(gate, -20.0, 20.0);
    let minus_z = FACTOR * fma(0.044715 * near * near, near, near);
    let kept = select(gate, near, gate < -20.0);
    y[i] = kept / (1.0 + exp(min(minus_z, 80.0))) * b[i];
}
