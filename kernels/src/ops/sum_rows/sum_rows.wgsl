// sum_rows_f32: y[c] = factor * sum over r of x[r, c].
//
// slots    x  f32 [rows, cols]   read
//          y  f32 [cols, 1]      write
// params   rows u32 @0   cols u32 @4   factor f32 @8   pad @12      16 bytes, uniform
// launch   grid ceil(cols / 32), folded over x and y   workgroup (256, 1, 1)   32 columns a workgroup, eight invocations a column
// shared   1024 bytes
// cost     bytes 4 * (rows * cols + cols)   flops rows * cols
// numerics f32; an invocation sums every eighth row in order, then a 3-step tree.

struct Params {
    rows: u32,
    cols: u32,
    factor: f32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
const COLUMNS: u32 = 32u;
const SHARES: u32 = BLOCK / COLUMNS;

var<workgroup> partial: array<f32, BLOCK>;

@compute @workgroup_size(BLOCK)
fn sum_rows_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = (group.y * groups.x + group.x) * COLUMNS + lane % COLUMNS;
    var sum = 0.0;
    if column < params.cols {
        for (var r = lane / COLUMNS; r < params.rows; r += SHARES) {
            sum += x[r * params.cols + column];
        }
    }
    partial[lane] = sum;
    for (var half = BLOCK / 2u; half >= COLUMNS; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane < COLUMNS && column < params.cols {
        y[column] = params.factor * partial[lane];
    }
}
