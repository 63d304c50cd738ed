// embed_sum_f32: y[r] = ((base[r] + e_0) + e_1) + ... + positions[r % steps or at[r]], e_q = table[q * entries + ids[r, first_codebook + q]].
//
// slots    ids        u32 [rows, ids_cols]              read; past the last entry reads the last
//          table      f32 [codebooks * entries, cols]   read
//          base       f32 [rows, cols]                  read where has_base is 1, else not touched
//          positions  f32 [places, cols]                read where has_positions is 1, else not touched
//          at         u32 [rows]                        read where has_at is 1, else not touched; past the last position
//                                                       takes the last
//          y          f32 [rows, cols]                  write; may not be base (WebGPU forbids aliasing)
// params   rows u32 @0   first_row u32 @4   codebooks u32 @8   first_codebook u32 @12   ids_cols u32 @16
//          entries u32 @20   cols u32 @24   steps u32 @28   has_base u32 @32   has_positions u32 @36   has_at u32 @40   places u32 @44
//          48 bytes, uniform
// launch   grid ceil(rows * cols / 256), folded over x and y   workgroup (256, 1, 1)   one value per invocation
// shared   none
// cost     bytes 4 * (rows * (ids_cols + at) + rows * cols * (1 + base) + rows of table and positions that are touched)
//          flops rows * cols * (codebooks - 1 + base + positions)
// numerics f32; additions from left to right, the same on every executor.

struct Params {
    rows: u32,
    first_row: u32,
    codebooks: u32,
    first_codebook: u32,
    ids_cols: u32,
    entries: u32,
    cols: u32,
    steps: u32,
    has_base: u32,
    has_positions: u32,
    has_at: u32,
    places: u32,
}

@group(0) @binding(0) var<storage, read>       ids: array<u32>;
@group(0) @binding(1) var<storage, read>       table: array<f32>;
@group(0) @binding(2) var<storage, read>       base: array<f32>;
@group(0) @binding(3) var<storage, read>       positions: array<f32>;
@group(0) @binding(4) var<storage, read>       at: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

fn embedding(row: u32, codebook: u32, col: u32) -> f32 {
    let entry = min(ids[row * params.ids_cols + params.first_codebook + codebook], params.entries - 1u);
    return table[(codebook * params.entries + entry) * params.cols + col];
}

@compute @workgroup_size(BLOCK)
fn embed_sum_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.rows * params.cols {
        return;
    }
    let row = i / params.cols;
    let col = i % params.cols;

    var sum = embedding(row, 0u, col);
    if params.has_base == 1u {
        sum = base[i] + sum;
    }
    for (var q = 1u; q < params.codebooks; q += 1u) {
        sum += embedding(row, q, col);
    }
    if params.has_positions == 1u {
        var place = (params.first_row + row) % params.steps;
        if params.has_at == 1u {
            place = min(at[row], params.places - 1u);
        }
        sum += positions[place * params.cols + col];
    }
    y[i] = sum;
}
