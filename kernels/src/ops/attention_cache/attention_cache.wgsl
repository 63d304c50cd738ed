// attention_cache: y[r, h] = sum_t p[t] v[t, h], p = softmax_t(scale * q[r, h] . k[t, h]), over the first
// min(positions[r] + extra, pages_per_row * page_steps) positions of the row's pages, none from a page on that is not held.
//
// slots    q          f32 [rows, q_cols]                     read; the query is its first heads * head_dim columns
//          k_cache    [pages_held, page_steps, heads * head_dim]   read; f32, or f16 or bf16 packed in pairs, by cached_type
//          v_cache    [pages_held, page_steps, heads * head_dim]   read; as k_cache; may be k_cache
//          pages      u32 [rows, pages_per_row]              read; pages_held and above: none
//          positions  u32 [rows]                             read
//          y          f32 [rows, heads * head_dim] with one chunk, else [rows, heads, chunks, head_dim + 2]: sums,
//                     maximum, sum of weights                write
// params   rows u32 @0   heads u32 @4   head_dim u32 @8   q_cols u32 @12   pages_held u32 @16   page_steps u32 @20
//          pages_per_row u32 @24   extra u32 @28   chunk u32 @32   chunks u32 @36   scale f32 @40   pad @44
//          48 bytes, uniform; head_dim 1 to 128
// launch   grid rows * heads * chunks, folded over x and y   workgroup (128, 1, 1)
//          one chunk of one head per workgroup; keys in tiles of 128, scored by 8 invocations each; then an invocation per
//          column and part of a tile, 128 / head_dim parts
// shared   6,664 bytes
// cost     bytes of a row of n keys: 2 * n * heads * head_dim * size of a cached value + 8 * heads * head_dim, and 4 a page
//          flops n * heads * (4 * head_dim + 4)
// numerics f32; a running maximum and sum over tiles of 128 keys; a score is summed by 8 partial sums in order; a result over
//          the keys of a part in order, then over parts in order. f16 and bf16 are widened exactly.

struct Params {
    rows: u32,
    heads: u32,
    head_dim: u32,
    q_cols: u32,
    pages_held: u32,
    page_steps: u32,
    pages_per_row: u32,
    extra: u32,
    chunk: u32,
    chunks: u32,
    scale: f32,
    pad0: u32,
}

@group(0) @binding(0) var<storage, read>       q: array<f32>;
@group(0) @binding(1) var<storage, read>       k_cache: array<u32>;
@group(0) @binding(2) var<storage, read>       v_cache: array<u32>;
@group(0) @binding(3) var<storage, read>       pages: array<u32>;
@group(0) @binding(4) var<storage, read>       positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform>             params: Params;

// What the caches hold: 0 f32, 1 f16, 2 bf16.
override cached_type: u32 = 0u;

const BLOCK: u32 = 128u;
const MAX_HEAD_DIM: u32 = 128u;
// Keys of a tile: each invocation weighs one.
const TILE: u32 = BLOCK;
// Invocations that score a key, and keys that are scored at once.
const LANES: u32 = 8u;
const KEYS: u32 = BLOCK / LANES;

const LOWEST: f32 = -3.4028234e38;

var<workgroup> query: array<f32, MAX_HEAD_DIM>;
// Where a key of the tile begins in the caches.
var<workgroup> starts: array<u32, TILE>;
var<workgroup> partial: array<f32, TILE * LANES>;
var<workgroup> weights: array<f32, TILE>;
// Maxima of halves of what is left, down to one; then sums of parts.
var<workgroup> halves: array<f32, BLOCK>;
var<workgroup> totals: array<f32, BLOCK>;
var<workgroup> missing: atomic<u32>;
var<workgroup> key_count: u32;

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
    if cached_type == 1u {
        return widen_f16(bits);
    }
    return bitcast<f32>(bits << 16u);
}

fn k_at(i: u32) -> f32 {
    if cached_type == 0u {
        return bitcast<f32>(k_cache[i]);
    }
    return widen(k_cache[i / 2u], i);
}

fn v_at(i: u32) -> f32 {
    if cached_type == 0u {
        return bitcast<f32>(v_cache[i]);
    }
    return widen(v_cache[i / 2u], i);
}

@compute @workgroup_size(BLOCK)
fn attention_cache(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = group.y * groups.x + group.x;
    if number >= params.rows * params.heads * params.chunks {
        return;
    }
    let c = number % params.chunks;
    let head = number / params.chunks % params.heads;
    let r = number / params.chunks / params.heads;
    let head_dim = params.head_dim;
    let row_pages = r * params.pages_per_row;

    // keys = min(positions[r] + extra, page_steps * the first page that is not held, or all of them)
    if local == 0u {
        atomicStore(&missing, params.pages_per_row);
    }
    if local < head_dim {
        query[local] = q[r * params.q_cols + head * head_dim + local];
    }
    workgroupBarrier();
    for (var nth = local; nth < params.pages_per_row; nth += BLOCK) {
        if pages[row_pages + nth] >= params.pages_held {
            atomicMin(&missing, nth);
        }
    }
    workgroupBarrier();
    if local == 0u {
        var wanted = positions[r] + params.extra;
        // the sum may have passed 2^32
        if wanted < params.extra {
            wanted = 0xffffffffu;
        }
        key_count = min(wanted, atomicLoad(&missing) * params.page_steps);
    }
    let keys = workgroupUniformLoad(&key_count);
    let first = min(c * params.chunk, keys);
    let end = first + min(params.chunk, keys - first);

    // this invocation sums column `column` over keys part, part + parts, ... of every tile
    let parts = BLOCK / head_dim;
    let part = local / head_dim;
    let column = local % head_dim;
    var top = LOWEST;
    var total = 0.0;
    var sum = 0.0;

    for (var tile = first; tile < end; tile += TILE) {
        let in_tile = min(TILE, end - tile);
        if local < in_tile {
            let t = tile + local;
            let page = pages[row_pages + t / params.page_steps];
            starts[local] = ((page * params.page_steps + t % params.page_steps) * params.heads + head) * head_dim;
        }
        workgroupBarrier();

        let lane = local % LANES;
        for (var key = local / LANES; key < in_tile; key += KEYS) {
            var score = 0.0;
            for (var d = lane; d < head_dim; d += LANES) {
                score = fma(query[d], k_at(starts[key] + d), score);
            }
            partial[key * LANES + lane] = score;
        }
        workgroupBarrier();

        var score = LOWEST;
        if local < in_tile {
            score = 0.0;
            for (var i = 0u; i < LANES; i += 1u) {
                score += partial[local * LANES + i];
            }
            score *= params.scale;
        }
        halves[local] = score;
        workgroupBarrier();
        for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
            if local < half {
                halves[local] = max(halves[local], halves[local + half]);
            }
            workgroupBarrier();
        }
        let new_top = max(top, halves[0]);
        weights[local] = 0.0;
        if local < in_tile {
            weights[local] = exp(score - new_top);
        }
        let shrink = exp(top - new_top);
        top = new_top;
        total *= shrink;
        sum *= shrink;
        workgroupBarrier();

        if part < parts {
            for (var key = part; key < in_tile; key += parts) {
                total += weights[key];
                sum = fma(weights[key], v_at(starts[key] + column), sum);
            }
        }
        // the starts and weights are read no more
        workgroupBarrier();
    }

    halves[local] = sum;
    totals[local] = total;
    workgroupBarrier();
    if local >= head_dim {
        return;
    }
    for (var other = 1u; other < parts; other += 1u) {
        sum += halves[other * head_dim + local];
        total += totals[other * head_dim + local];
    }
    if params.chunks == 1u {
        var result = 0.0;
        if end > first {
            result = sum / total;
        }
        y[number * head_dim + local] = result;
        return;
    }
    let at = number * (head_dim + 2u);
    y[at + local] = sum;
    if local == 0u {
        y[at + head_dim] = top;
        y[at + head_dim + 1u] = total;
    }
}
