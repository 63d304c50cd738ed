// capture: y[i, c] = round(x[rows_index[i], c]), to nearest, ties to even.
//
// slots    x           f32 [rows, cols]   read, as bits
//          rows_index  u32 [kept]         read where has_index is 1, else not touched; past the last row reads the last
//          y           [kept, cols]       write; f32, or f16 or bf16 packed in pairs, the spare half of an odd end 0
// params   rows u32 @0   cols u32 @4   kept u32 @8   has_index u32 @12      16 bytes, uniform
// launch   grid ceil(words of y / 256), folded over x and y   workgroup (256, 1, 1)   one word of y per invocation
// shared   none
// cost     bytes 4 * min(kept, rows) * cols + 4 * kept + size of y   flops 0
// numerics exact: integer arithmetic on bits.

struct Params {
    rows: u32,
    cols: u32,
    kept: u32,
    has_index: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<u32>;
@group(0) @binding(1) var<storage, read>       rows_index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

// What y holds: 0 f32, 1 f16, 2 bf16.
override kept_type: u32 = 0u;

// Bits of value number i of the kept rows.
fn value(i: u32) -> u32 {
    if params.has_index == 0u {
        return x[i];
    }
    let row = min(rows_index[i / params.cols], params.rows - 1u);
    return x[row * params.cols + i % params.cols];
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

fn narrow(v: u32) -> u32 {
    if kept_type == 1u {
        return to_f16(v);
    }
    return to_bf16(v);
}

@compute @workgroup_size(BLOCK)
fn capture(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let elements = params.kept * params.cols;
    let word = (group.y * groups.x + group.x) * BLOCK + lane;
    if kept_type == 0u {
        if word < elements {
            y[word] = value(word);
        }
        return;
    }
    if word >= (elements + 1u) / 2u {
        return;
    }
    var pair = narrow(value(2u * word));
    if 2u * word + 1u < elements {
        pair |= narrow(value(2u * word + 1u)) << 16u;
    }
    y[word] = pair;
}
