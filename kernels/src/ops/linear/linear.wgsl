// linear: y[r, o] = act(sum_c x[r, c] * weight[o, c] + bias[o]) + residual[r, o].
//
// slots    x         f32 [rows, cols]                        read
//          weight    [outs, cols]                            read; f32, or f16 or bf16 packed in pairs, by weight_type
//          bias      f32 [outs]                              read where has_bias is 1, else not touched
//          residual  f32 [rows, out_stride] from out_first   read where has_residual is 1, else not touched
//          y         f32 [rows, out_stride] from out_first   write; may not be x or residual (WebGPU forbids aliasing)
// params   rows u32 @0   cols u32 @4   outs u32 @8   out_first u32 @12   out_stride u32 @16   activation u32 @20
//          has_bias u32 @24   has_residual u32 @28      32 bytes, uniform
// launch   grid ceil(rows / 64) * ceil(outs / 64), folded over x and y   workgroup (256, 1, 1)
//          one tile of 64 by 64 per workgroup, 4 by 4 values per invocation; columns in tiles of 16
// shared   8,320 bytes
// cost     bytes 4 * (rows * cols + rows * outs * (1 + residual) + outs * bias) + size of weight
//          flops 2 * rows * cols * outs
// numerics f32; a value is summed over columns in order. GELU: erfc(z) = exp(-z^2) * t * Q(2 t - 1), t = 1 / (1 + 0.4 z),
//          Q of degree 10 within 9e-9; with exp's 3 + 2 |x| ulp, 3e-7 in all. ELU: exp(x) - 1, within 5e-7, absolute.

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

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       weight: array<u32>;
@group(0) @binding(2) var<storage, read>       bias: array<f32>;
@group(0) @binding(3) var<storage, read>       residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform>             params: Params;

// What weight holds: 0 f32, 1 f16, 2 bf16.
override weight_type: u32 = 0u;

// Values of an invocation along rows, and along outs.
const OWNED: u32 = 4u;
// Invocations along rows, and along outs; also the columns of a tile.
const SIDE: u32 = 16u;
const BLOCK: u32 = SIDE * SIDE;
const TILE: u32 = SIDE * OWNED;

const GELU: u32 = 1u;
const RELU: u32 = 2u;
const ELU: u32 = 3u;

// Column c of row (or out) i is at c * PITCH + i: odd, so that neighbouring columns are in different banks.
const PITCH: u32 = TILE + 1u;
var<workgroup> x_tile: array<f32, SIDE * PITCH>;
var<workgroup> weight_tile: array<f32, SIDE * PITCH>;

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

// Value number i of the weight.
fn weight_at(i: u32) -> f32 {
    if weight_type == 0u {
        return bitcast<f32>(weight[i]);
    }
    let pair = weight[i / 2u];
    let upper = (i & 1u) == 1u;
    let bits = select(pair & 0xffffu, pair >> 16u, upper);
    if weight_type == 1u {
        return widen_f16(bits);
    }
    return bitcast<f32>(bits << 16u);
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
fn linear(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let out_tiles = (params.outs + TILE - 1u) / TILE;
    let row_tiles = (params.rows + TILE - 1u) / TILE;
    let number = group.y * groups.x + group.x;
    if number >= row_tiles * out_tiles {
        return;
    }
    let tile_row = number / out_tiles * TILE;
    let tile_out = number % out_tiles * TILE;
    // neighbours in a row of the result are neighbours among the invocations
    let own_row = lane / SIDE;
    let own_out = lane % SIDE;

    var sums: array<array<f32, OWNED>, OWNED>;
    for (var i = 0u; i < OWNED; i += 1u) {
        for (var j = 0u; j < OWNED; j += 1u) {
            sums[i][j] = 0.0;
        }
    }

    for (var first = 0u; first < params.cols; first += SIDE) {
        // neighbours load neighbouring columns; past an edge there are zeros
        let c = first + lane % SIDE;
        for (var i = lane / SIDE; i < TILE; i += SIDE) {
            let at = lane % SIDE * PITCH + i;
            let row = tile_row + i;
            let out = tile_out + i;
            var x_value = 0.0;
            if row < params.rows && c < params.cols {
                x_value = x[row * params.cols + c];
            }
            var weight_value = 0.0;
            if out < params.outs && c < params.cols {
                weight_value = weight_at(out * params.cols + c);
            }
            x_tile[at] = x_value;
            weight_tile[at] = weight_value;
        }
        workgroupBarrier();
        for (var k = 0u; k < SIDE; k += 1u) {
            for (var i = 0u; i < OWNED; i += 1u) {
                let x_value = x_tile[k * PITCH + own_row + i * SIDE];
                for (var j = 0u; j < OWNED; j += 1u) {
                    sums[i][j] = fma(x_value, weight_tile[k * PITCH + own_out + j * SIDE], sums[i][j]);
                }
            }
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < OWNED; i += 1u) {
        let row = tile_row + own_row + i * SIDE;
        for (var j = 0u; j < OWNED; j += 1u) {
            let out = tile_out + own_out + j * SIDE;
            if row < params.rows && out < params.outs {
                var v = sums[i][j];
                if params.has_bias == 1u {
                    v += bias[out];
                }
                v = activate(v);
                let at = row * params.out_stride + params.out_first + out;
                if params.has_residual == 1u {
                    v += residual[at];
                }
                y[at] = v;
            }
        }
    }
}
