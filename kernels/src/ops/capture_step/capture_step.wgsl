// capture_step_f32: history[r, positions[r] % columns, c] = x[r, c].
//
// slots    x          f32 [rows, cols]            read, as bits
//          positions  u32 [rows]                  read
//          history    f32 [rows, columns, cols]   read_write, as bits; only written
// params   rows u32 @0   cols u32 @4   columns u32 @8   pad @12      16 bytes, uniform
// launch   grid ceil(rows * cols / 256), folded over x and y   workgroup (256, 1, 1)   one value per invocation
// shared   none
// cost     bytes 8 * rows * cols + 4 * rows   flops 0
// numerics exact: copies of bits.

struct Params {
    rows: u32,
    cols: u32,
    columns: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<u32>;
@group(0) @binding(1) var<storage, read>       positions: array<u32>;
@group(0) @binding(2) var<storage, read_write> history: array<u32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn capture_step_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.rows * params.cols {
        return;
    }
    let row = i / params.cols;
    let column = positions[row] % params.columns;
    history[(row * params.columns + column) * params.cols + i % params.cols] = x[i];
}
