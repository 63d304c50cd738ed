// column_sums_f32: sums of x - shift and of its square over the rows of each group, column by column.
//
// slots    x        f32 [groups * steps, cols]   read
//          shift    f32 [cols]                   read where has_shift is 1, else not touched
//          sum      f32 [groups, cols]           write
//          squares  f32 [groups, cols]           write
// params   groups u32 @0   steps u32 @4   cols u32 @8   skip u32 @12   has_shift u32 @16   pad @20      32 bytes, uniform
// launch   grid groups * ceil(cols / 64), folded over x and y   workgroup (64, 1, 1)   one column of a group per invocation
// shared   none
// cost     bytes 4 * (groups * (steps - skip) * cols + cols + 2 * groups * cols)   flops 4 * groups * (steps - skip) * cols
// numerics f32; runs of 32 rows are summed in order, then their sums.

struct Params {
    groups: u32,
    steps: u32,
    cols: u32,
    skip: u32,
    has_shift: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       shift: array<f32>;
@group(0) @binding(2) var<storage, read_write> sum: array<f32>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 64u;
const RUN: u32 = 32u;

@compute @workgroup_size(BLOCK)
fn column_sums_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (params.cols + BLOCK - 1u) / BLOCK;
    let block = group.y * groups.x + group.x;
    let g = block / blocks;
    let c = block % blocks * BLOCK + lane;
    if g >= params.groups || c >= params.cols {
        return;
    }
    var taken_off = 0.0;
    if params.has_shift == 1u {
        taken_off = shift[c];
    }
    var all = 0.0;
    var all_squares = 0.0;
    for (var first = params.skip; first < params.steps; first += RUN) {
        var run = 0.0;
        var run_squares = 0.0;
        for (var s = first; s < min(first + RUN, params.steps); s++) {
            let d = x[(g * params.steps + s) * params.cols + c] - taken_off;
            run += d;
            run_squares = fma(d, d, run_squares);
        }
        all += run;
        all_squares += run_squares;
    }
    sum[g * params.cols + c] = all;
    squares[g * params.cols + c] = all_squares;
}
