// embed_sum: y[r] = ((base[r] + e_0) + e_1) + ... + positions[r % steps or at[r]], e_q = table[q * entries + ids[r, first_codebook + q]].
//
// slots    ids        u32 [rows, ids_cols]              read; past the last entry reads the last
//          table      [codebooks * entries, cols]       read; f32, or f16 or bf16 packed in pairs, by table_type
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
// cost     bytes 4 * (rows * (ids_cols + at) + rows * cols * (1 + base) + rows of positions that are touched) + those of the table
//          flops rows * cols * (codebooks - 1 + base + positions)
// numerics f32, to which a table's values widen exactly; additions from left to right, the same on every executor.

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
@group(0) @binding(1) var<storage, read>       table: array<u32>;
@group(0) @binding(2) var<storage, read>       base: array<f32>;
@group(0) @binding(3) var<storage, read>       positions: array<f32>;
@group(0) @binding(4) var<storage, read>       at: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform>             params: Params;

// What the table holds: 0 f32, 1 f16, 2 bf16.
override table_type: u32 = 0u;

const BLOCK: u32 = 256u;

// An f16, exactly; unpack2x16float would need a feature, and may flush subnormals.
fn widen_f16(bits: u32) -> f32 {
    let sign = (bits & 0x8000u) << 16u;
    let magnitude = bits & 0x7fffu;
    if magnitude < 0x400u {
        // subnormal: units of 2^-24
        return bitcast<f32>(bitcast<u32>(f32(magnitude) * 5.9604645e-8) | sign);
    }
    // exponents are 127 - 15 apart; that of infinity and NaN stays the highest
    var wide = (magnitude << 13u) + (112u << 23u);
    if magnitude >= 0x7c00u {
        wide += 112u << 23u;
    }
    return bitcast<f32>(wide | sign);
}

fn embedding(row: u32, codebook: u32, col: u32) -> f32 {
    let entry = min(ids[row * params.ids_cols + params.first_codebook + codebook], params.entries - 1u);
    let i = (codebook * params.entries + entry) * params.cols + col;
    if table_type == 0u {
        return bitcast<f32>(table[i]);
    }
    let bits = (table[i / 2u] >> (i % 2u * 16u)) & 0xffffu;
    if table_type == 1u {
        return widen_f16(bits);
    }
    return bitcast<f32>(bits << 16u);
}

@compute @workgroup_size(BLOCK)
fn embed_sum(
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
