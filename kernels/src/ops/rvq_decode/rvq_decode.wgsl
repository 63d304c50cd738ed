// rvq_decode_f32: y = sum over stages of the entry that the code of the stage names.
//
// slots    codes      u32 [rows, stages]            read; past the last entry means the last entry
//          codebooks  f32 [stages, entries, dim]    read
//          y          f32 [rows, dim]               write
// params   rows u32 @0   dim u32 @4   stages u32 @8   entries u32 @12      16 bytes, uniform
// launch   grid ceil(rows * dim / 256), folded over x and y   workgroup (256, 1, 1)   one invocation one element of y
// shared   none
// cost     bytes 4 * (rows * stages + stages * min(rows, entries) * dim + rows * dim)   flops rows * dim * stages
// numerics f32; added in order of the stages from 0, the same bits everywhere.

struct Params {
    rows: u32,
    dim: u32,
    stages: u32,
    entries: u32,
}

@group(0) @binding(0) var<storage, read>       codes: array<u32>;
@group(0) @binding(1) var<storage, read>       codebooks: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn rvq_decode_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * BLOCK + lane;
    if at >= params.rows * params.dim {
        return;
    }
    let row = at / params.dim;
    let d = at % params.dim;
    var sum = 0.0;
    for (var s = 0u; s < params.stages; s++) {
        let code = min(codes[row * params.stages + s], params.entries - 1u);
        sum += codebooks[(s * params.entries + code) * params.dim + d];
    }
    y[at] = sum;
}
