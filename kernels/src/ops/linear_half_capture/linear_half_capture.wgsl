// linear_half_capture: y[r, o] = act(sum_c x[r, c] * weight[o, c] + bias[o]) + residual[r, o], kept = half(y).
//
// slots    x         [rows, cols]                            read; f16 or bf16 packed in pairs, by half_type
//          weight    [outs, cols]                            read; as x
//          bias      f32 [outs]                              read where has_bias is 1, else not touched
//          residual  f32 [rows, out_stride] from out_first   read where has_residual is 1, else not touched
//          y         f32 [rows, out_stride] from out_first   write; may not be x or residual (WebGPU forbids aliasing)
//          kept      [rows, out_stride] from out_first       write; the type of x packed in pairs
// params   rows u32 @0   cols u32 @4   outs u32 @8   out_first u32 @12   out_stride u32 @16   activation u32 @20
//          has_bias u32 @24   has_residual u32 @28      32 bytes, uniform
// launch   grid ceil(rows / 64) * ceil(outs / 64), folded over x and y   workgroup (256, 1, 1)
//          one tile of 64 by 64 per workgroup, 4 by 2 pairs of outs per invocation; columns in tiles of 16
// shared   8,320 bytes
// cost     bytes 2 * (rows * cols + outs * cols) + 4 * (rows * outs * residual + outs * bias) + 6 * rows * outs
//          flops 2 * rows * cols * outs
// numerics f32; a value is summed over columns in order; kept is rounded once, to nearest, ties to even. GELU:
//          erfc(z) = exp(-z^2) * t * Q(2 t - 1), t = 1 / (1 + 0.4 z), Q of degree 10 within 9e-9; with exp's
//          3 + 2 |x| ulp, 3e-7 in all. ELU: exp(x) - 1, within 5e-7, absolute.

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

@group(0) @binding(0) var<storage, read>       x: array<u32>;
@group(0) @binding(1) var<storage, read>       weight: array<u32>;
@group(0) @binding(2) var<storage, read>       bias: array<f32>;
@group(0) @binding(3) var<storage, read>       residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
// atomic, since a word that holds the end of a row and the start of the next belongs to two invocations
@group(0) @binding(5) var<storage, read_write> kept: array<atomic<u32>>;
@group(0) @binding(6) var<uniform>             params: Params;

// What x, weight and kept hold: 0 f16, 1 bf16.
override half_type: u32 = 0u;

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

// An f16, exactly; unpack2x16float may flush subnormals.
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

// Value number i, which lies in this pair.
fn widen(pair: u32, i: u32) -> f32 {
    let bits = select(pair & 0xffffu, pair >> 16u, (i & 1u) == 1u);
    if half_type == 0u {
        return widen_f16(bits);
    }
    return bitcast<f32>(bits << 16u);
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

fn to_bf16(v: u32) -> u32 {
    if (v & 0x7fffffffu) > 0x7f800000u {
        return (v >> 16u) | 0x40u;
    }
    return round_off(v, 16u);
}

fn narrow(v: f32) -> u32 {
    if half_type == 0u {
        return to_f16(bitcast<u32>(v));
    }
    return to_bf16(bitcast<u32>(v));
}

// Value number i of kept; its neighbour in the word is left as it is.
fn put_half(i: u32, bits: u32) {
    let shift = (i & 1u) * 16u;
    atomicAnd(&kept[i / 2u], 0xffff0000u >> shift);
    atomicOr(&kept[i / 2u], bits << shift);
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

@compute @workgroup_size(BLOCK)
fn linear_half_capture(
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
    // neighbours in a row of the result are neighbours among the invocations; pairs of outs lie half a tile apart
    let own_row = lane / SIDE;
    let own_out = lane % SIDE * 2u;

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
                let n = row * params.cols + c;
                x_value = widen(x[n / 2u], n);
            }
            var weight_value = 0.0;
            if out < params.outs && c < params.cols {
                let n = out * params.cols + c;
                weight_value = widen(weight[n / 2u], n);
            }
            x_tile[at] = x_value;
            weight_tile[at] = weight_value;
        }
        workgroupBarrier();
        for (var k = 0u; k < SIDE; k += 1u) {
            for (var i = 0u; i < OWNED; i += 1u) {
                let x_value = x_tile[k * PITCH + own_row + i * SIDE];
                for (var j = 0u; j < OWNED; j += 1u) {
                    let out = own_out + j / 2u * (TILE / 2u) + j % 2u;
                    sums[i][j] = fma(x_value, weight_tile[k * PITCH + out], sums[i][j]);
                }
            }
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < OWNED; i += 1u) {
        let row = tile_row + own_row + i * SIDE;
        for (var j = 0u; j < OWNED; j += 2u) {
            let out = tile_out + own_out + j / 2u * (TILE / 2u);
            if row >= params.rows || out >= params.outs {
                continue;
            }
            let at = row * params.out_stride + params.out_first + out;
            let v = finish(sums[i][j], out, at);
            y[at] = v;
            var next = 0.0;
            let has_next = out + 1u < params.outs;
            if has_next {
                next = finish(sums[i][j + 1u], out + 1u, at + 1u);
                y[at + 1u] = next;
            }
            if has_next && at % 2u == 0u {
                atomicStore(&kept[at / 2u], narrow(v) | (narrow(next) << 16u));
            } else {
                put_half(at, narrow(v));
                if has_next {
                    put_half(at + 1u, narrow(next));
                }
            }
        }
    }
}
