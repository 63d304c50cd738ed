// probe_u32: y = 3 * x + add + bias, and the same into twin; bias and twin may be left out.

struct Params {
    n: u32,
    add: u32,
    has_bias: u32,
    has_twin: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<u32>;
@group(0) @binding(1) var<storage, read>       bias: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<storage, read_write> twin: array<u32>;
@group(0) @binding(4) var<uniform>             params: Params;

@compute @workgroup_size(64)
fn probe_u32(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= params.n {
        return;
    }
    var value = 3u * x[i] + params.add;
    if params.has_bias != 0u {
        value += bias[i];
    }
    y[i] = value;
    if params.has_twin != 0u {
        twin[i] = value;
    }
}
