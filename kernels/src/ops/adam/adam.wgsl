// adam_f32: g = rates[0] * grad[i, column]; v = keep2 v + fresh2 g^2; m = keep1 m + fresh1 g; param -= rates[1] * m / (rates[2] * sqrt(v) + eps).
//
// slots    param    f32 [elements]           updated
//          moments  f32 [count, elements]    updated; v, then m where count is 2, else m is g
//          grad     f32 [elements, stride]   read; one column of it
//          rates    f32 [4]                  read
// params   elements u32 @0   stride u32 @4   column u32 @8   count u32 @12   keep1 f32 @16   fresh1 f32 @20   keep2 f32 @24
//          fresh2 f32 @28   eps f32 @32   pad @36      48 bytes, uniform
// launch   grid ceil(elements / 256), folded over x and y   workgroup (256, 1, 1)   one value an invocation
// shared   none
// cost     bytes 4 * elements * (3 + 2 * count) + 16   flops 10 * elements
// numerics f32; a root and a quotient as exact as the device has them.

struct Params {
    elements: u32,
    stride: u32,
    column: u32,
    count: u32,
    keep1: f32,
    fresh1: f32,
    keep2: f32,
    fresh2: f32,
    eps: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read_write> param: array<f32>;
@group(0) @binding(1) var<storage, read_write> moments: array<f32>;
@group(0) @binding(2) var<storage, read>       grad: array<f32>;
@group(0) @binding(3) var<storage, read>       rates: array<f32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn adam_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.elements {
        return;
    }
    let g = rates[0] * grad[i * params.stride + params.column];
    let v = params.keep2 * moments[i] + params.fresh2 * g * g;
    moments[i] = v;
    var m = g;
    if params.count == 2u {
        m = params.keep1 * moments[params.elements + i] + params.fresh1 * g;
        moments[params.elements + i] = m;
    }
    param[i] -= rates[1] * m / (rates[2] * sqrt(v) + params.eps);
}
