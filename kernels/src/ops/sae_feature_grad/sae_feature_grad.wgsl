// sae_feature_grad_f32: grads[r, j] = error[r] . w_dec[indices[r, j]] + penalty where values[r, j] > 0, else 0; stats[r] = |error[r]|^2, sum, count.
//
// slots    indices  u32 [rows, k]           read
//          values   f32 [rows, k]           read; active where above 0
//          w_dec    f32 [features, width]   read, the rows of active features
//          error    f32 [rows, width]       read
//          penalty  f32 [1]                 read
//          grads    f32 [rows, k]           write
//          stats    f32 [rows, 3]           write
// params   rows u32 @0   k u32 @4   features u32 @8   width u32 @12      16 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   one row a workgroup, eight of its entries at a time, 32
//          invocations an entry
// shared   4096 bytes
// cost     bytes 12 * rows * k + 4 * (rows * width + rows of w_dec that are active + 3 * rows)   flops 2 * rows * (k + 1) * width
// numerics f32; an invocation sums every 32nd product in order, then a 5-step tree; statistics by every 256th, then an 8-step tree.

struct Params {
    rows: u32,
    k: u32,
    features: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read>       indices: array<u32>;
@group(0) @binding(1) var<storage, read>       values: array<f32>;
@group(0) @binding(2) var<storage, read>       w_dec: array<f32>;
@group(0) @binding(3) var<storage, read>       error: array<f32>;
@group(0) @binding(4) var<storage, read>       penalty: array<f32>;
@group(0) @binding(5) var<storage, read_write> grads: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;
@group(0) @binding(7) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
const SHARE: u32 = 32u;
const TOGETHER: u32 = BLOCK / SHARE;

var<workgroup> partial: array<vec3<f32>, BLOCK>;

@compute @workgroup_size(BLOCK)
fn sae_feature_grad_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let start = row * params.width;
    for (var first = 0u; first < params.k; first += TOGETHER) {
        let j = first + lane / SHARE;
        let at = row * params.k + j;
        var is_active = false;
        if j < params.k {
            is_active = values[at] > 0.0;
        }
        var sum = 0.0;
        if is_active {
            let direction = indices[at] * params.width;
            for (var c = lane % SHARE; c < params.width; c += SHARE) {
                sum = fma(error[start + c], w_dec[direction + c], sum);
            }
        }
        partial[lane].x = sum;
        for (var half = SHARE / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if lane % SHARE < half {
                partial[lane].x += partial[lane + half].x;
            }
        }
        if lane % SHARE == 0u && j < params.k {
            grads[at] = select(0.0, partial[lane].x + penalty[0], is_active);
        }
        workgroupBarrier();
    }

    var row_stats = vec3<f32>(0.0);
    for (var c = lane; c < params.width; c += BLOCK) {
        row_stats.x = fma(error[start + c], error[start + c], row_stats.x);
    }
    for (var j = lane; j < params.k; j += BLOCK) {
        let value = values[row * params.k + j];
        if value > 0.0 {
            row_stats += vec3(0.0, value, 1.0);
        }
    }
    partial[lane] = row_stats;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        for (var i = 0u; i < 3u; i++) {
            stats[3u * row + i] = partial[0][i];
        }
    }
}
