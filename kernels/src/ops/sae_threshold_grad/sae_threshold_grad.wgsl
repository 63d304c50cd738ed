// sae_threshold_grad_f32: grad[f] = -(t / bandwidth) sum of (t error[r] . w_dec[f] + penalty) over the rows with pre[r, f] near t.
//
// slots    pre            f32 [rows, features]    read
//          log_threshold  f32 [features]          read; t = exp of it
//          w_dec          f32 [features, width]   read, the rows of features with a row near
//          error          f32 [rows, width]       read
//          penalty        f32 [1]                 read
//          grad           f32 [features, 1]       write
// params   rows u32 @0   features u32 @4   width u32 @8   bandwidth f32 @12      16 bytes, uniform
// launch   grid features, folded over x and y   workgroup (64, 1, 1)   a feature a workgroup; an invocation sums every 64th column
//          of all rows that are near: |pre - t| below half the bandwidth
// shared   256 bytes
// cost     bytes 4 * features * (rows + 2), and errors and directions of what is near   flops rows * features
// numerics f32; an invocation sums rows in order, columns of a row in order, then a 6-step tree.

struct Params {
    rows: u32,
    features: u32,
    width: u32,
    bandwidth: f32,
}

@group(0) @binding(0) var<storage, read>       pre: array<f32>;
@group(0) @binding(1) var<storage, read>       log_threshold: array<f32>;
@group(0) @binding(2) var<storage, read>       w_dec: array<f32>;
@group(0) @binding(3) var<storage, read>       error: array<f32>;
@group(0) @binding(4) var<storage, read>       penalty: array<f32>;
@group(0) @binding(5) var<storage, read_write> grad: array<f32>;
@group(0) @binding(6) var<uniform>             params: Params;

const BLOCK: u32 = 64u;

var<workgroup> partial: array<f32, BLOCK>;

@compute @workgroup_size(BLOCK)
fn sae_threshold_grad_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let feature = group.y * groups.x + group.x;
    if feature >= params.features {
        return;
    }
    let threshold = exp(log_threshold[feature]);
    var sum = 0.0;
    var near = 0.0;
    for (var r = 0u; r < params.rows; r += 1u) {
        if abs(pre[r * params.features + feature] - threshold) < 0.5 * params.bandwidth {
            near += 1.0;
            for (var c = lane; c < params.width; c += BLOCK) {
                sum = fma(error[r * params.width + c], w_dec[feature * params.width + c], sum);
            }
        }
    }
    partial[lane] = sum;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        grad[feature] = -(threshold / params.bandwidth) * (threshold * partial[0] + near * penalty[0]);
    }
}
