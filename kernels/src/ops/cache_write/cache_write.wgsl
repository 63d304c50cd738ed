// cache_write: p = positions[r] + s; page = pages[r, p / page_steps]; k_cache[page, p % page_steps, i] =
// round(k[r * steps + s, k_first + i]), v_cache likewise from v and v_first; what lies past the row's pages or in none is left.
//
// slots    k          f32 [rows * steps, k_cols]             read, as bits
//          v          f32 [rows * steps, v_cols]             read, as bits; may be k
//          positions  u32 [rows]                             read
//          pages      u32 [rows, pages_per_row]              read; pages_held and above: none
//          k_cache    [pages_held, page_steps, width]        update; f32, or f16 or bf16 packed in pairs, by cached_type
//          v_cache    [pages_held, page_steps, width]        update; as k_cache, and not k_cache (WebGPU forbids aliasing)
// params   rows u32 @0   steps u32 @4   k_cols u32 @8   k_first u32 @12   v_cols u32 @16   v_first u32 @20   width u32 @24
//          pages_held u32 @28   page_steps u32 @32   pages_per_row u32 @36   pad @40   48 bytes, uniform
// launch   grid rows * steps, folded over x and y   workgroup (128, 1, 1)   a position per workgroup
// shared   none
// cost     bytes rows * steps * 2 * width * (4 + size of a cached value) + 4 * rows + 4 * pages looked up   flops 0
// numerics exact: integer arithmetic on bits, one rounding to nearest, ties to even.

struct Params {
    rows: u32,
    steps: u32,
    k_cols: u32,
    k_first: u32,
    v_cols: u32,
    v_first: u32,
    width: u32,
    pages_held: u32,
    page_steps: u32,
    pages_per_row: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       k: array<u32>;
@group(0) @binding(1) var<storage, read>       v: array<u32>;
@group(0) @binding(2) var<storage, read>       positions: array<u32>;
@group(0) @binding(3) var<storage, read>       pages: array<u32>;
// atomic, since a row of odd length shares a word with the next position, which another workgroup writes
@group(0) @binding(4) var<storage, read_write> k_cache: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<atomic<u32>>;
@group(0) @binding(6) var<uniform>             params: Params;

// What the caches hold: 0 f32, 1 f16, 2 bf16.
override cached_type: u32 = 0u;

const BLOCK: u32 = 128u;

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
    if cached_type == 1u {
        return to_f16(v);
    }
    return to_bf16(v);
}

@compute @workgroup_size(BLOCK)
fn cache_write(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = group.y * groups.x + group.x;
    if number >= params.rows * params.steps {
        return;
    }
    let r = number / params.steps;
    let s = number % params.steps;
    let position = positions[r] + s;
    // the sum may have passed 2^32
    if position < s || position / params.page_steps >= params.pages_per_row {
        return;
    }
    let page = pages[r * params.pages_per_row + position / params.page_steps];
    if page >= params.pages_held {
        return;
    }
    let row = (page * params.page_steps + position % params.page_steps) * params.width;
    let k_from = number * params.k_cols + params.k_first;
    let v_from = number * params.v_cols + params.v_first;
    if cached_type == 0u {
        for (var i = lane; i < params.width; i += BLOCK) {
            atomicStore(&k_cache[row + i], k[k_from + i]);
            atomicStore(&v_cache[row + i], v[v_from + i]);
        }
        return;
    }
    // an invocation writes words; only bits of this position change in a word that it shares, so the owner of the other
    // half may write meanwhile
    let row_end = row + params.width;
    for (var word = row / 2u + lane; 2u * word < row_end; word += BLOCK) {
        let has_low = 2u * word >= row;
        let has_high = 2u * word + 1u < row_end;
        var key = 0u;
        var value = 0u;
        var kept = 0u;
        if has_low {
            key = narrow(k[k_from + 2u * word - row]);
            value = narrow(v[v_from + 2u * word - row]);
        } else {
            kept = 0xffffu;
        }
        if has_high {
            key |= narrow(k[k_from + 2u * word + 1u - row]) << 16u;
            value |= narrow(v[v_from + 2u * word + 1u - row]) << 16u;
        } else {
            kept = 0xffff0000u;
        }
        if kept == 0u {
            atomicStore(&k_cache[word], key);
            atomicStore(&v_cache[word], value);
        } else {
            atomicAnd(&k_cache[word], kept);
            atomicOr(&k_cache[word], key);
            atomicAnd(&v_cache[word], kept);
            atomicOr(&v_cache[word], value);
        }
    }
}
