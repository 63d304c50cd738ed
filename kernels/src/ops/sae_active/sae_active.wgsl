// sae_active_f32: indices, values = the features f of each row with pre[r, f] above exp(log_threshold[f]), or above 0, in order.
//
// slots    pre            f32 [rows, features]   read
//          log_threshold  f32 [features]         read where has_threshold is 1, else not touched
//          indices        u32 [rows, features]   write; 0 behind the last active feature
//          values         f32 [rows, features]   write; 0 behind the last active feature
// params   rows u32 @0   features u32 @4   has_threshold u32 @8   pad @12      16 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   a row a workgroup; an invocation looks at neighbouring
//          features twice: it counts the active ones, and writes them behind those of the invocations before it
// shared   1024 bytes
// cost     bytes 12 * rows * features + 4 * features   flops 0
// numerics copies, as bits; a threshold by exp.

struct Params {
    rows: u32,
    features: u32,
    has_threshold: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       pre: array<u32>;
@group(0) @binding(1) var<storage, read>       log_threshold: array<f32>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> values: array<u32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
const INFINITY: u32 = 0x7f800000u;

// How many active features the invocations up to this one have.
var<workgroup> counts: array<u32, BLOCK>;

/// Whether a feature is active, by the bits of its pre-activation.
fn is_active(bits: u32, feature: u32) -> bool {
    if (bits & 0x7fffffffu) > INFINITY {
        return true;
    }
    if params.has_threshold == 1u {
        return bitcast<f32>(bits) > exp(log_threshold[feature]);
    }
    return bitcast<f32>(bits) > 0.0;
}

@compute @workgroup_size(BLOCK)
fn sae_active_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let start = row * params.features;
    let share = (params.features + BLOCK - 1u) / BLOCK;
    let first = min(lane * share, params.features);
    let end = min(first + share, params.features);
    var own = 0u;
    for (var f = first; f < end; f += 1u) {
        if is_active(pre[start + f], f) {
            own += 1u;
        }
    }
    counts[lane] = own;
    workgroupBarrier();
    for (var step = 1u; step < BLOCK; step *= 2u) {
        var before = 0u;
        if lane >= step {
            before = counts[lane - step];
        }
        workgroupBarrier();
        counts[lane] += before;
        workgroupBarrier();
    }
    var place = start + counts[lane] - own;
    for (var f = first; f < end; f += 1u) {
        let bits = pre[start + f];
        if is_active(bits, f) {
            indices[place] = f;
            values[place] = bits;
            place += 1u;
        }
    }
    for (var i = start + counts[BLOCK - 1u] + lane; i < start + params.features; i += BLOCK) {
        indices[i] = 0u;
        values[i] = 0u;
    }
}
