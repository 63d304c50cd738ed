// linear_rows: y[r, o] = act(sum_c x[r, c] * w[o, c] + bias[o]) + residual[r, o], w = weight, weight_b, weight_c in turn.
//
// slots    x         f32 [rows, cols]                        read
//          weight    [outs, cols]                            read; f32, or f16 or bf16 packed in pairs, by weight_type
//          weight_b  [outs_b, cols]                          read, of the same type; not touched where outs_b is 0
//          weight_c  [outs_c, cols]                          read, of the same type; not touched where outs_c is 0
//          bias      f32 [outs + outs_b + outs_c]            read where has_bias is 1, else not touched
//          residual  f32 [rows, out_stride] from out_first   read where has_residual is 1, else not touched
//          y         f32 [rows, out_stride] from out_first   write; may not be x or residual (WebGPU forbids aliasing)
// params   rows u32 @0   cols u32 @4   outs u32 @8   outs_b u32 @12   outs_c u32 @16   out_first u32 @20
//          out_stride u32 @24   activation u32 @28   has_bias u32 @32   has_residual u32 @36   pad @40   pad @44
//          48 bytes, uniform
// launch   grid ceil(rows / 8) * ceil((outs + outs_b + outs_c) / 4), folded over x and y   workgroup (64, 1, 1)
//          one tile of 8 rows and 4 outs per workgroup; an invocation takes every 64th pair of columns of all 32 values
// shared   8,192 bytes
// cost     bytes 4 * (rows * cols + rows * total * (1 + residual) + total * bias) + size of weights
//          flops 2 * rows * cols * total, total = outs + outs_b + outs_c
// numerics f32; an invocation sums its columns in order, then a tree of 6 levels over the invocations: the same for a row in
//          any company. GELU: erfc(z) = exp(-z^2) * t * Q(2 t - 1), t = 1 / (1 + 0.4 z), Q of degree 10 within 9e-9; with
//          exp's 3 + 2 |x| ulp, 3e-7 in all. ELU: exp(x) - 1, within 5e-7, absolute.

struct Params {
    rows: u32,
    cols: u32,
    outs: u32,
    outs_b: u32,
    outs_c: u32,
    out_first: u32,
    out_stride: u32,
    activation: u32,
    has_bias: u32,
    has_residual: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       weight: array<u32>;
@group(0) @binding(2) var<storage, read>       weight_b: array<u32>;
@group(0) @binding(3) var<storage, read>       weight_c: array<u32>;
@group(0) @binding(4) var<storage, read>       bias: array<f32>;
@group(0) @binding(5) var<storage, read>       residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<uniform>             params: Params;

// What the weights hold: 0 f32, 1 f16, 2 bf16.
override weight_type: u32 = 0u;

const BLOCK: u32 = 64u;
// Rows and outs of a tile.
const ROWS: u32 = 8u;
const OUTS: u32 = 4u;

const GELU: u32 = 1u;
const RELU: u32 = 2u;
const ELU: u32 = 3u;

// Value (row, out) of invocation i at (row * OUTS + out) * BLOCK + i.
var<workgroup> parts: array<f32, ROWS * OUTS * BLOCK>;

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

// Word i of the weight that has row `out` of all.
fn word(out: u32, i: u32) -> u32 {
    if out < params.outs {
        return weight[i];
    }
    if out < params.outs + params.outs_b {
        return weight_b[i];
    }
    return weight_c[i];
}

fn widen(bits: u32) -> f32 {
    if weight_type == 1u {
        return widen_f16(bits);
    }
    return bitcast<f32>(bits << 16u);
}

// Columns c and c + 1 of row `out` of all, which is row `row` of its weight; a column that is not there is 0.
fn pair_at(out: u32, row: u32, c: u32) -> vec2<f32> {
    let i = row * params.cols + c;
    let second = c + 1u < params.cols;
    if weight_type == 0u {
        var pair = vec2(bitcast<f32>(word(out, i)), 0.0);
        if second {
            pair.y = bitcast<f32>(word(out, i + 1u));
        }
        return pair;
    }
    let first_word = word(out, i / 2u);
    if (i & 1u) == 0u {
        return vec2(widen(first_word & 0xffffu), select(0.0, widen(first_word >> 16u), second));
    }
    // a row of odd length that starts within a word
    var pair = vec2(widen(first_word >> 16u), 0.0);
    if second {
        pair.y = widen(word(out, i / 2u + 1u) & 0xffffu);
    }
    return pair;
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

@compute @workgroup_size(BLOCK)
fn linear_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let total = params.outs + params.outs_b + params.outs_c;
    let out_tiles = (total + OUTS - 1u) / OUTS;
    let row_tiles = (params.rows + ROWS - 1u) / ROWS;
    let number = group.y * groups.x + group.x;
    if number >= row_tiles * out_tiles {
        return;
    }
    let tile_row = number / out_tiles * ROWS;
    let tile_out = number % out_tiles * OUTS;
    let tile_rows = min(ROWS, params.rows - tile_row);
    let tile_outs = min(OUTS, total - tile_out);

    // rows of the outs within their weights
    var weight_rows: array<u32, OUTS>;
    for (var j = 0u; j < OUTS; j += 1u) {
        var row = tile_out + j;
        if row >= params.outs {
            row -= params.outs;
            if row >= params.outs_b {
                row -= params.outs_b;
            }
        }
        weight_rows[j] = row;
    }

    var sums: array<array<f32, OUTS>, ROWS>;
    for (var i = 0u; i < ROWS; i += 1u) {
        for (var j = 0u; j < OUTS; j += 1u) {
            sums[i][j] = 0.0;
        }
    }
    for (var c = 2u * lane; c < params.cols; c += 2u * BLOCK) {
        var pairs: array<vec2<f32>, OUTS>;
        for (var j = 0u; j < OUTS; j += 1u) {
            if j < tile_outs {
                pairs[j] = pair_at(tile_out + j, weight_rows[j], c);
            }
        }
        for (var i = 0u; i < ROWS; i += 1u) {
            if i < tile_rows {
                let at = (tile_row + i) * params.cols + c;
                let first = x[at];
                var second = 0.0;
                if c + 1u < params.cols {
                    second = x[at + 1u];
                }
                for (var j = 0u; j < OUTS; j += 1u) {
                    sums[i][j] = fma(second, pairs[j].y, fma(first, pairs[j].x, sums[i][j]));
                }
            }
        }
    }

    for (var i = 0u; i < ROWS; i += 1u) {
        for (var j = 0u; j < OUTS; j += 1u) {
            parts[(i * OUTS + j) * BLOCK + lane] = sums[i][j];
        }
    }
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        // all values, each halved by as many invocations
        for (var part = lane; part < ROWS * OUTS * half; part += BLOCK) {
            let at = part / half * BLOCK + part % half;
            parts[at] += parts[at + half];
        }
    }
    workgroupBarrier();

    if lane < ROWS * OUTS {
        let i = lane / OUTS;
        let j = lane % OUTS;
        if i < tile_rows && j < tile_outs {
            let out = tile_out + j;
            var v = parts[lane * BLOCK];
            if params.has_bias == 1u {
                v += bias[out];
            }
            v = activate(v);
            let at = (tile_row + i) * params.out_stride + params.out_first + out;
            if params.has_residual == 1u {
                v += residual[at];
            }
            y[at] = v;
        }
    }
}
