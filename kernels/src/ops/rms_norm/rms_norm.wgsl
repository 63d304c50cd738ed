// rms_norm_f32: y = x * inverseSqrt(mean(x^2) + eps) * gamma, over each row.
//
// slots    x      f32 [rows, cols]   read
//          gamma  f32 [cols]         read
//          y      f32 [rows, cols]   write; may not be x (WebGPU forbids aliasing a writable binding)
// params   rows u32 @0   cols u32 @4   eps f32 @8   pad @12      16 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (128, 1, 1)   one workgroup per row
// shared   512 bytes
// cost     bytes 4 * (2 * rows * cols + cols)   flops 4 * rows * cols
// numerics f32; each invocation sums cols / 128 squares, then a 7-step tree.

struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       gamma: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 128u;

var<workgroup> partial: array<f32, BLOCK>;

@compute @workgroup_size(BLOCK)
fn rms_norm_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let start = row * params.cols;

    var sum = 0.0;
    for (var c = lane; c < params.cols; c += BLOCK) {
        sum = fma(x[start + c], x[start + c], sum);
    }
    partial[lane] = sum;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    let squares = workgroupUniformLoad(&partial[0]);
    let scale = inverseSqrt(squares / f32(params.cols) + params.eps);

    for (var c = lane; c < params.cols; c += BLOCK) {
        y[start + c] = x[start + c] * scale * gamma[c];
    }
}
