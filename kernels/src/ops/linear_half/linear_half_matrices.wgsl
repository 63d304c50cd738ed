// linear_half_matrices: y[r, o] = act(sum_c x[r, c] * weight[o, c] + bias[o]) + residual[r, o], on units for matrices.
//
// slots    x         f16 [rows, cols]                        read; cols a multiple of 8
//          weight    f16 [outs, cols]                        read
//          bias      f32 [outs]                              read where has_bias is 1, else not touched
//          residual  f32 [rows, out_stride] from out_first   read where has_residual is 1, else not touched
//          y         [rows, out_stride] from out_first       write; f32, or f16 packed in pairs, by y_type; outs, out_first
//                                                            and out_stride even; may not be x or residual
// params   rows u32 @0   cols u32 @4   outs u32 @8   out_first u32 @12   out_stride u32 @16   activation u32 @20
//          has_bias u32 @24   has_residual u32 @28      32 bytes, uniform
// launch   grid ceil(rows / 128) * ceil(outs / 128), folded over x and y   workgroup (128, 1, 1): 4 subgroups of 32
//          one tile of 128 by 128 per workgroup, a quarter of 64 by 64 per subgroup, as 4 by 4 matrices of 16 by 16;
//          columns in stages of 32, of which the next is on its way while one is multiplied
// shared   29,696 bytes: a stage of x and of weight, and a strip of 16 by 32 sums per subgroup
// cost     bytes 2 * (rows * cols + outs * cols) + 4 * (rows * outs * residual + outs * bias) + size of y
//          flops 2 * rows * cols * outs
// numerics products of f16, summed in f32 16 columns at a time, as the adapter's units sum them (no order is promised, and
//          they may truncate), stage after stage in order; past an edge there are zeros. y is rounded once, to nearest,
//          ties to even. GELU: erfc(z) = exp(-z^2) * t * Q(2 t - 1), t = 1 / (1 + 0.4 z), Q of degree 10 within 9e-9;
//          with exp's 3 + 2 |x| ulp, 3e-7 in all. ELU: exp(x) - 1, within 5e-7, absolute.

enable f16;
enable wgpu_cooperative_matrix;

struct Params {
    rows: u32,
    cols: u32,
    outs: u32,
    out_first: u32,
    out_stride: u32,
    activation: u32,
    has_bias: u32,
    has_residual: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read>       weight: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read>       bias: array<f32>;
@group(0) @binding(3) var<storage, read>       residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;
@group(0) @binding(5) var<uniform>             params: Params;

// What y holds: 0 f16, 1 f32.
override y_type: u32 = 0u;

// Rows and columns of a matrix, as the types below say.
const SIDE: u32 = 16u;
// x by rows, the weight by outs, and sums of their products.
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

const SUBGROUP: u32 = 32u;
const BLOCK: u32 = 4u * SUBGROUP;
// Rows and outs of a subgroup, and of the two by two subgroups of a workgroup.
const QUARTER: u32 = 4u * SIDE;
const TILE: u32 = 2u * QUARTER;

const GELU: u32 = 1u;
const RELU: u32 = 2u;
const ELU: u32 = 3u;

// Columns of a stage. Rows lie 8 columns further apart than they are long, so that neighbours are in different banks.
const COLS: u32 = 2u * SIDE;
// Vectors of four from row to row, and from matrix to matrix along columns.
const PITCH: u32 = (COLS + 8u) / 4u;
const ACROSS: u32 = SIDE / 4u;
// Vectors from matrix to matrix along rows or outs.
const DOWN: u32 = SIDE * PITCH;
var<workgroup> x_tile: array<vec4<f16>, TILE * PITCH>;
var<workgroup> weight_tile: array<vec4<f16>, TILE * PITCH>;

// An invocation stages eight columns of every LANES-th row, or out.
const LANES: u32 = BLOCK / (COLS / 8u);
const STEP: u32 = LANES * PITCH;

// Sums on their way to y: for each subgroup two matrices side by side.
const STRIP_PITCH: u32 = 2u * SIDE + 4u;
const STRIP: u32 = SIDE * STRIP_PITCH;
var<workgroup> strips: array<f32, 4u * STRIP>;

// Eight columns.
struct Chunk {
    low: vec4<f16>,
    high: vec4<f16>,
}

fn x_chunk(row: u32, col: u32) -> Chunk {
    var chunk = Chunk();
    if row < params.rows && col < params.cols {
        let at = (row * params.cols + col) / 4u;
        chunk.low = x[at];
        chunk.high = x[at + 1u];
    }
    return chunk;
}

fn weight_chunk(out: u32, col: u32) -> Chunk {
    var chunk = Chunk();
    if out < params.outs && col < params.cols {
        let at = (out * params.cols + col) / 4u;
        chunk.low = weight[at];
        chunk.high = weight[at + 1u];
    }
    return chunk;
}

fn stage_x(at: u32, chunk: Chunk) {
    x_tile[at] = chunk.low;
    x_tile[at + 1u] = chunk.high;
}

fn stage_weight(at: u32, chunk: Chunk) {
    weight_tile[at] = chunk.low;
    weight_tile[at + 1u] = chunk.high;
}

// Drops the lowest `bits` bits of v, to nearest, ties to even; 0 < bits < 32.
fn round_off(v: u32, bits: u32) -> u32 {
    let below_half = (1u << (bits - 1u)) - 1u;
    let odd = (v >> bits) & 1u;
    return (v + below_half + odd) >> bits;
}

fn to_f16(v: u32) -> u32 {
    let sign = (v >> 16u) & 0x8000u;
    let magnitude = v & 0x7fffffffu;
    if magnitude > 0x7f800000u {
        // NaN: quiet, with the upper bits of its payload
        return sign | 0x7e00u | ((magnitude >> 13u) & 0x3ffu);
    }
    if magnitude >= 0x47800000u {
        // 2^16 and above, infinity; 65,520 up to there are carried to infinity by the rounding below
        return sign | 0x7c00u;
    }
    if magnitude >= 0x38800000u {
        // 2^-14 and above: normal. Exponents are 127 - 15 apart.
        return sign | round_off(magnitude - (112u << 23u), 13u);
    }
    // Subnormal: units of 2^-24, which the 24-bit significand has at exponent 126. 25 bits dropped leave less than half.
    let exponent = magnitude >> 23u;
    if exponent < 102u {
        return sign;
    }
    let significand = (magnitude & 0x7fffffu) | 0x800000u;
    return sign | round_off(significand, 126u - exponent);
}

fn gelu(v: f32) -> f32 {
    // 0.4 / sqrt(2)
    let t = 1.0 / fma(abs(v), 0.28284271, 1.0);
    let u = fma(t, 2.0, -1.0);
    var q = -2.9168623e-5;
    q = fma(q, u, -1.0746197e-5);
    q = fma(q, u, 0.00026648838);
    q = fma(q, u, 0.00016544145);
    q = fma(q, u, -0.001921382);
    q = fma(q, u, -0.0033531552);
    q = fma(q, u, 0.011343547);
    q = fma(q, u, 0.06849977);
    q = fma(q, u, 0.1815657);
    q = fma(q, u, 0.32186076);
    q = fma(q, u, 0.42161274);
    let erfc = exp(-0.5 * v * v) * t * q;
    if v < 0.0 {
        // from -15 down, the factor erfc is 0
        return 0.5 * max(v, -15.0) * erfc;
    }
    return v * (1.0 - 0.5 * erfc);
}

fn activate(v: f32) -> f32 {
    switch params.activation {
        case GELU: {
            return gelu(v);
        }
        case RELU: {
            return select(v, 0.0, v < 0.0);
        }
        case ELU: {
            if v < 0.0 {
                return exp(v) - 1.0;
            }
            return v;
        }
        default: {
            return v;
        }
    }
}

// What becomes of a sum that is number `at` of residual and y.
fn finish(sum: f32, out: u32, at: u32) -> f32 {
    var v = sum;
    if params.has_bias == 1u {
        v += bias[out];
    }
    v = activate(v);
    if params.has_residual == 1u {
        v += residual[at];
    }
    return v;
}

// Writes what the strips hold: that of the first subgroup begins at this row and out.
fn put_strips(first_row: u32, first_out: u32, lane: u32) {
    // neighbours have neighbouring pairs of a row
    for (var i = lane; i < 4u * SIDE * SIDE; i += BLOCK) {
        let subgroup = i / (SIDE * SIDE);
        let strip_row = i / SIDE % SIDE;
        let strip_out = i % SIDE * 2u;
        let row = first_row + subgroup / 2u * QUARTER + strip_row;
        let out = first_out + subgroup % 2u * QUARTER + strip_out;
        if row >= params.rows || out >= params.outs {
            continue;
        }
        let place = subgroup * STRIP + strip_row * STRIP_PITCH + strip_out;
        let at = row * params.out_stride + params.out_first + out;
        let v = finish(strips[place], out, at);
        let next = finish(strips[place + 1u], out + 1u, at + 1u);
        if y_type == 1u {
            y[at] = bitcast<u32>(v);
            y[at + 1u] = bitcast<u32>(next);
        } else {
            y[at / 2u] = to_f16(bitcast<u32>(v)) | (to_f16(bitcast<u32>(next)) << 16u);
        }
    }
}

@compute @workgroup_size(BLOCK)
fn linear_half_matrices(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let out_tiles = (params.outs + TILE - 1u) / TILE;
    let row_tiles = (params.rows + TILE - 1u) / TILE;
    let number = group.y * groups.x + group.x;
    if number >= row_tiles * out_tiles {
        return;
    }
    let tile_row = number / out_tiles * TILE;
    let tile_out = number % out_tiles * TILE;

    // what this invocation stages, and where
    let load_col = lane % (COLS / 8u) * 8u;
    let load_row = tile_row + lane / (COLS / 8u);
    let load_out = tile_out + lane / (COLS / 8u);
    let stage = lane / (COLS / 8u) * PITCH + load_col / 4u;
    // what this subgroup multiplies, and where its strip is
    let x_at = subgroup / 2u * QUARTER * PITCH;
    let weight_at = subgroup % 2u * QUARTER * PITCH;
    let strip = subgroup * STRIP;

    // sums of rows i and outs j of the 4 by 4 matrices
    var sums_00 = Sums();
    var sums_01 = Sums();
    var sums_02 = Sums();
    var sums_03 = Sums();
    var sums_10 = Sums();
    var sums_11 = Sums();
    var sums_12 = Sums();
    var sums_13 = Sums();
    var sums_20 = Sums();
    var sums_21 = Sums();
    var sums_22 = Sums();
    var sums_23 = Sums();
    var sums_30 = Sums();
    var sums_31 = Sums();
    var sums_32 = Sums();
    var sums_33 = Sums();

    var x_0 = x_chunk(load_row, load_col);
    var x_1 = x_chunk(load_row + LANES, load_col);
    var x_2 = x_chunk(load_row + 2u * LANES, load_col);
    var x_3 = x_chunk(load_row + 3u * LANES, load_col);
    var weight_0 = weight_chunk(load_out, load_col);
    var weight_1 = weight_chunk(load_out + LANES, load_col);
    var weight_2 = weight_chunk(load_out + 2u * LANES, load_col);
    var weight_3 = weight_chunk(load_out + 3u * LANES, load_col);
    for (var first = 0u; first < params.cols; first += COLS) {
        // every subgroup is done with the stage before
        workgroupBarrier();
        stage_x(stage, x_0);
        stage_x(stage + STEP, x_1);
        stage_x(stage + 2u * STEP, x_2);
        stage_x(stage + 3u * STEP, x_3);
        stage_weight(stage, weight_0);
        stage_weight(stage + STEP, weight_1);
        stage_weight(stage + 2u * STEP, weight_2);
        stage_weight(stage + 3u * STEP, weight_3);
        workgroupBarrier();
        let col = first + COLS + load_col;
        x_0 = x_chunk(load_row, col);
        x_1 = x_chunk(load_row + LANES, col);
        x_2 = x_chunk(load_row + 2u * LANES, col);
        x_3 = x_chunk(load_row + 3u * LANES, col);
        weight_0 = weight_chunk(load_out, col);
        weight_1 = weight_chunk(load_out + LANES, col);
        weight_2 = weight_chunk(load_out + 2u * LANES, col);
        weight_3 = weight_chunk(load_out + 3u * LANES, col);

        // columns 0 to 15 of the stage; written out, since drivers keep indexed matrices in memory
        {
            let left_0 = coopLoadT<Left>(&x_tile[x_at], PITCH);
            let left_1 = coopLoadT<Left>(&x_tile[x_at + DOWN], PITCH);
            let left_2 = coopLoadT<Left>(&x_tile[x_at + 2u * DOWN], PITCH);
            let left_3 = coopLoadT<Left>(&x_tile[x_at + 3u * DOWN], PITCH);
            let right_0 = coopLoad<Right>(&weight_tile[weight_at], PITCH);
            let right_1 = coopLoad<Right>(&weight_tile[weight_at + DOWN], PITCH);
            let right_2 = coopLoad<Right>(&weight_tile[weight_at + 2u * DOWN], PITCH);
            let right_3 = coopLoad<Right>(&weight_tile[weight_at + 3u * DOWN], PITCH);
            sums_00 = coopMultiplyAdd(left_0, right_0, sums_00);
            sums_01 = coopMultiplyAdd(left_0, right_1, sums_01);
            sums_02 = coopMultiplyAdd(left_0, right_2, sums_02);
            sums_03 = coopMultiplyAdd(left_0, right_3, sums_03);
            sums_10 = coopMultiplyAdd(left_1, right_0, sums_10);
            sums_11 = coopMultiplyAdd(left_1, right_1, sums_11);
            sums_12 = coopMultiplyAdd(left_1, right_2, sums_12);
            sums_13 = coopMultiplyAdd(left_1, right_3, sums_13);
            sums_20 = coopMultiplyAdd(left_2, right_0, sums_20);
            sums_21 = coopMultiplyAdd(left_2, right_1, sums_21);
            sums_22 = coopMultiplyAdd(left_2, right_2, sums_22);
            sums_23 = coopMultiplyAdd(left_2, right_3, sums_23);
            sums_30 = coopMultiplyAdd(left_3, right_0, sums_30);
            sums_31 = coopMultiplyAdd(left_3, right_1, sums_31);
            sums_32 = coopMultiplyAdd(left_3, right_2, sums_32);
            sums_33 = coopMultiplyAdd(left_3, right_3, sums_33);
        }

        // columns 16 to 31
        {
            let left_0 = coopLoadT<Left>(&x_tile[x_at + ACROSS], PITCH);
            let left_1 = coopLoadT<Left>(&x_tile[x_at + DOWN + ACROSS], PITCH);
            let left_2 = coopLoadT<Left>(&x_tile[x_at + 2u * DOWN + ACROSS], PITCH);
            let left_3 = coopLoadT<Left>(&x_tile[x_at + 3u * DOWN + ACROSS], PITCH);
            let right_0 = coopLoad<Right>(&weight_tile[weight_at + ACROSS], PITCH);
            let right_1 = coopLoad<Right>(&weight_tile[weight_at + DOWN + ACROSS], PITCH);
            let right_2 = coopLoad<Right>(&weight_tile[weight_at + 2u * DOWN + ACROSS], PITCH);
            let right_3 = coopLoad<Right>(&weight_tile[weight_at + 3u * DOWN + ACROSS], PITCH);
            sums_00 = coopMultiplyAdd(left_0, right_0, sums_00);
            sums_01 = coopMultiplyAdd(left_0, right_1, sums_01);
            sums_02 = coopMultiplyAdd(left_0, right_2, sums_02);
            sums_03 = coopMultiplyAdd(left_0, right_3, sums_03);
            sums_10 = coopMultiplyAdd(left_1, right_0, sums_10);
            sums_11 = coopMultiplyAdd(left_1, right_1, sums_11);
            sums_12 = coopMultiplyAdd(left_1, right_2, sums_12);
            sums_13 = coopMultiplyAdd(left_1, right_3, sums_13);
            sums_20 = coopMultiplyAdd(left_2, right_0, sums_20);
            sums_21 = coopMultiplyAdd(left_2, right_1, sums_21);
            sums_22 = coopMultiplyAdd(left_2, right_2, sums_22);
            sums_23 = coopMultiplyAdd(left_2, right_3, sums_23);
            sums_30 = coopMultiplyAdd(left_3, right_0, sums_30);
            sums_31 = coopMultiplyAdd(left_3, right_1, sums_31);
            sums_32 = coopMultiplyAdd(left_3, right_2, sums_32);
            sums_33 = coopMultiplyAdd(left_3, right_3, sums_33);
        }
    }

    // two matrices of every subgroup at a time
    coopStoreT(sums_00, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_01, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row, tile_out, lane);
    workgroupBarrier();
    coopStoreT(sums_02, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_03, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row, tile_out + 2u * SIDE, lane);
    workgroupBarrier();
    coopStoreT(sums_10, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_11, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row + SIDE, tile_out, lane);
    workgroupBarrier();
    coopStoreT(sums_12, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_13, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row + SIDE, tile_out + 2u * SIDE, lane);
    workgroupBarrier();
    coopStoreT(sums_20, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_21, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row + 2u * SIDE, tile_out, lane);
    workgroupBarrier();
    coopStoreT(sums_22, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_23, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row + 2u * SIDE, tile_out + 2u * SIDE, lane);
    workgroupBarrier();
    coopStoreT(sums_30, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_31, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row + 3u * SIDE, tile_out, lane);
    workgroupBarrier();
    coopStoreT(sums_32, &strips[strip], STRIP_PITCH);
    coopStoreT(sums_33, &strips[strip + SIDE], STRIP_PITCH);
    workgroupBarrier();
    put_strips(tile_row + 3u * SIDE, tile_out + 2u * SIDE, lane);
}
