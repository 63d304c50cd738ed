// add_f32: y = x + alpha * v, v a tensor like x or one row; with alpha exactly 0, y is x bit for bit.
//
// slots    x  f32 [rows, cols]                           read
//          v  f32 [rows, cols] (v_rows 1), [cols] (0)    read; may be x
//          y  f32 [rows, cols]                           write; neither x nor v (WebGPU forbids aliasing)
// params   rows u32 @0   cols u32 @4   v_rows u32 @8   alpha f32 @12      16 bytes, uniform
// launch   grid ceil(rows * cols / 256), folded over x and y   workgroup (256, 1, 1)   one value per invocation
// shared   none
// cost     bytes 4 * (2 * rows * cols + size of v)   flops 2 * rows * cols
// numerics f32; fused or not, as the device has it.

struct Params {
    rows: u32,
    cols: u32,
    v_rows: u32,
    alpha: f32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       v: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn add_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.rows * params.cols {
        return;
    }
    if params.alpha == 0.0 {
        y[i] = x[i];
        return;
    }
    let at = select(i % params.cols, i, params.v_rows == 1u);
    y[i] = fma(params.alpha, v[at], x[i]);
}
