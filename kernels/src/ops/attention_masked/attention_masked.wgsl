// attention_masked: y[b, s, h] = sum_t p[t] v[b, t, h], p = softmax_t(scale * q[b, s, h] . k[b, t, h] + bias[h, s, t]), over
//                   t < min(lengths[b], k_steps); 0 where there is no such t.
//
// slots    q        [batch, q_steps, heads * head_dim]   read; f32, or f16 or bf16 packed in pairs, by value_type
//          k        [batch, k_steps, heads * head_dim]   read; as q; may be q
//          v        [batch, k_steps, heads * head_dim]   read; as q; may be q or k
//          lengths  u32 [batch]                          read
//          bias     f32 [heads, q_steps, k_steps]        read where has_bias is 1, else not touched
//          y        [batch, q_steps, heads * head_dim]   write; as q, the spare half of an odd end 0; none of the others
//                                                        (WebGPU forbids aliasing)
// params   batch u32 @0   q_steps u32 @4   k_steps u32 @8   heads u32 @12   head_dim u32 @16   scale f32 @20
//          has_bias u32 @24   pad @28      32 bytes, uniform
// launch   grid batch * heads * ceil(q_steps / 16), folded over x and y   workgroup (128, 1, 1)
//          one head of 16 queries per workgroup, 8 invocations per query; keys and values in tiles of 8
// shared   12,804 bytes
// cost     bytes 2 * size of q + 2 * size of k + 4 * batch + size of bias
//          flops batch * q_steps * k_steps * heads * (4 * head_dim + 5)
// numerics f32; a running maximum and sum over tiles of 8 keys; a score is summed over head_dim in order. f16 and bf16
//          are widened exactly and y is rounded once, to nearest, ties to even.

struct Params {
    batch: u32,
    q_steps: u32,
    k_steps: u32,
    heads: u32,
    head_dim: u32,
    scale: f32,
    has_bias: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       q: array<u32>;
@group(0) @binding(1) var<storage, read>       k: array<u32>;
@group(0) @binding(2) var<storage, read>       v: array<u32>;
@group(0) @binding(3) var<storage, read>       lengths: array<u32>;
@group(0) @binding(4) var<storage, read>       bias: array<f32>;
// atomic, since a row of odd length ends within a word whose other half another workgroup writes
@group(0) @binding(5) var<storage, read_write> y: array<atomic<u32>>;
@group(0) @binding(6) var<uniform>             params: Params;

// What the slots hold: 0 f32, 1 f16, 2 bf16.
override value_type: u32 = 0u;

const MAX_HEAD_DIM: u32 = 128u;
const QUERIES: u32 = 16u;
// Invocations of a query, and keys of a tile: each invocation scores one pair.
const LANES: u32 = 8u;
const BLOCK: u32 = QUERIES * LANES;
// Columns of the result that an invocation owns: lane, lane + LANES, ...
const OWNED: u32 = MAX_HEAD_DIM / LANES;

const LOWEST: f32 = -3.4028234e38;

var<workgroup> queries: array<f32, QUERIES * MAX_HEAD_DIM>;
var<workgroup> tile: array<f32, LANES * MAX_HEAD_DIM>;
var<workgroup> scores: array<f32, BLOCK>;
var<workgroup> seen_keys: u32;

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

fn widen(word: u32, i: u32) -> f32 {
    let bits = select(word & 0xffffu, word >> 16u, (i & 1u) == 1u);
    if value_type == 1u {
        return widen_f16(bits);
    }
    return bitcast<f32>(bits << 16u);
}

fn q_at(i: u32) -> f32 {
    if value_type == 0u {
        return bitcast<f32>(q[i]);
    }
    return widen(q[i / 2u], i);
}

fn k_at(i: u32) -> f32 {
    if value_type == 0u {
        return bitcast<f32>(k[i]);
    }
    return widen(k[i / 2u], i);
}

fn v_at(i: u32) -> f32 {
    if value_type == 0u {
        return bitcast<f32>(v[i]);
    }
    return widen(v[i / 2u], i);
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

fn narrow(value: f32) -> u32 {
    if value_type == 1u {
        return to_f16(bitcast<u32>(value));
    }
    return to_bf16(bitcast<u32>(value));
}

// Writes one half of a word of y. Only bits of that half change, so the owner of the other half may write it meanwhile.
fn store_half(word: u32, bits: u32, shift: u32) {
    atomicAnd(&y[word], 0xffff0000u >> shift);
    atomicOr(&y[word], bits << shift);
}

@compute @workgroup_size(BLOCK)
fn attention_masked(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let blocks = (params.q_steps + QUERIES - 1u) / QUERIES;
    let number = group.y * groups.x + group.x;
    if number >= params.batch * params.heads * blocks {
        return;
    }
    let first = number % blocks * QUERIES;
    let head = number / blocks % params.heads;
    let b = number / blocks / params.heads;
    let head_dim = params.head_dim;
    let width = params.heads * head_dim;
    // of this head, query s starts at start + s * width, and key t at key_start + t * width
    let start = b * params.q_steps * width + head * head_dim;
    let key_start = b * params.k_steps * width + head * head_dim;

    let query = local / LANES;
    let lane = local % LANES;
    let s = first + query;

    for (var i = local; i < QUERIES * head_dim; i += BLOCK) {
        let position = first + i / head_dim;
        if position < params.q_steps {
            queries[i] = q_at(start + position * width + i % head_dim);
        } else {
            queries[i] = 0.0;
        }
    }

    if local == 0u {
        seen_keys = min(lengths[b], params.k_steps);
    }
    workgroupBarrier();
    let key_end = workgroupUniformLoad(&seen_keys);
    var top = LOWEST;
    var total = 0.0;
    var sums: array<f32, OWNED>;
    for (var own = 0u; own < OWNED; own += 1u) {
        sums[own] = 0.0;
    }

    for (var key = 0u; key < key_end; key += LANES) {
        let in_tile = min(LANES, key_end - key) * head_dim;

        // the values of the tile before are read no more, and the queries are there
        workgroupBarrier();
        for (var i = local; i < in_tile; i += BLOCK) {
            tile[i] = k_at(key_start + (key + i / head_dim) * width + i % head_dim);
        }
        workgroupBarrier();

        let t = key + lane;
        let seen = t < key_end;
        var score = 0.0;
        if seen {
            for (var d = 0u; d < head_dim; d += 1u) {
                score = fma(queries[query * head_dim + d], tile[lane * head_dim + d], score);
            }
        }
        score *= params.scale;
        if params.has_bias == 1u && seen && s < params.q_steps {
            score += bias[(head * params.q_steps + s) * params.k_steps + t];
        }
        scores[local] = select(LOWEST, score, seen);
        workgroupBarrier();

        // the keys are read no more
        for (var i = local; i < in_tile; i += BLOCK) {
            tile[i] = v_at(key_start + (key + i / head_dim) * width + i % head_dim);
        }
        var new_top = top;
        for (var j = 0u; j < LANES; j += 1u) {
            new_top = max(new_top, scores[query * LANES + j]);
        }
        let shrink = exp(top - new_top);
        top = new_top;
        total *= shrink;
        for (var own = 0u; own < OWNED; own += 1u) {
            sums[own] *= shrink;
        }
        workgroupBarrier();

        for (var j = 0u; j < LANES; j += 1u) {
            let at = key + j;
            if at < key_end {
                let weight = exp(scores[query * LANES + j] - top);
                total += weight;
                for (var own = 0u; own < OWNED; own += 1u) {
                    let d = own * LANES + lane;
                    if d < head_dim {
                        sums[own] = fma(weight, tile[j * head_dim + d], sums[own]);
                    }
                }
            }
        }
    }

    // no keys: 0 / 1
    total = select(total, 1.0, key_end == 0u);
    let row = start + s * width;
    if value_type == 0u {
        if s < params.q_steps {
            for (var own = 0u; own < OWNED; own += 1u) {
                let d = own * LANES + lane;
                if d < head_dim {
                    atomicStore(&y[row + d], bitcast<u32>(sums[own] / total));
                }
            }
        }
        return;
    }

    // The result takes the place of the queries, which are read no more: an invocation writes words, not its columns.
    workgroupBarrier();
    for (var own = 0u; own < OWNED; own += 1u) {
        let d = own * LANES + lane;
        if d < head_dim {
            queries[query * head_dim + d] = sums[own] / total;
        }
    }
    workgroupBarrier();
    if s >= params.q_steps {
        return;
    }
    let row_end = row + head_dim;
    for (var word = row / 2u + lane; 2u * word < row_end; word += LANES) {
        var low = 0u;
        var high = 0u;
        let has_low = 2u * word >= row;
        let has_high = 2u * word + 1u < row_end;
        if has_low {
            low = narrow(queries[query * head_dim + 2u * word - row]);
        }
        if has_high {
            high = narrow(queries[query * head_dim + 2u * word + 1u - row]);
        }
        // the last value of an odd count has its word alone
        if has_low && (has_high || row_end == params.batch * params.q_steps * width) {
            atomicStore(&y[word], low | (high << 16u));
        } else if has_low {
            store_half(word, low, 0u);
        } else {
            store_half(word, high, 16u);
        }
    }
}
