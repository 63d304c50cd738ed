// attention_f32: y[b, s, h] = sum_t p[t] v[b, t, h], p = softmax_t(scale * q[b, s, h] . k[b, t, h]), over all t or t <= s.
//
// slots    q  f32 [batch, steps, heads * head_dim]   read
//          k  f32 [batch, steps, heads * head_dim]   read; may be q
//          v  f32 [batch, steps, heads * head_dim]   read; may be q or k
//          y  f32 [batch, steps, heads * head_dim]   write; none of the others (WebGPU forbids aliasing)
// params   batch u32 @0   steps u32 @4   heads u32 @8   head_dim u32 @12   scale f32 @16   causal u32 @20   pad @24
//          32 bytes, uniform
// launch   grid batch * heads * ceil(steps / 16), folded over x and y   workgroup (128, 1, 1)
//          one head of 16 queries per workgroup, 8 invocations per query; keys and values in tiles of 8
// shared   12,800 bytes
// cost     bytes 16 * batch * steps * heads * head_dim   flops batch * heads * pairs (q, k) * (4 * head_dim + 4)
// numerics f32; a running maximum and sum over tiles of 8 keys; a score is summed over head_dim in order.

struct Params {
    batch: u32,
    steps: u32,
    heads: u32,
    head_dim: u32,
    scale: f32,
    causal: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       q: array<f32>;
@group(0) @binding(1) var<storage, read>       k: array<f32>;
@group(0) @binding(2) var<storage, read>       v: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform>             params: Params;

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

@compute @workgroup_size(BLOCK)
fn attention_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let blocks = (params.steps + QUERIES - 1u) / QUERIES;
    let number = group.y * groups.x + group.x;
    if number >= params.batch * params.heads * blocks {
        return;
    }
    let first = number % blocks * QUERIES;
    let head = number / blocks % params.heads;
    let b = number / blocks / params.heads;
    let head_dim = params.head_dim;
    let width = params.heads * head_dim;
    // position t of this head starts at start + t * width
    let start = b * params.steps * width + head * head_dim;

    let query = local / LANES;
    let lane = local % LANES;
    let s = first + query;

    for (var i = local; i < QUERIES * head_dim; i += BLOCK) {
        let position = first + i / head_dim;
        if position < params.steps {
            queries[i] = q[start + position * width + i % head_dim];
        } else {
            queries[i] = 0.0;
        }
    }

    var key_end = params.steps;
    if params.causal == 1u {
        key_end = min(params.steps, first + QUERIES);
    }
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
            tile[i] = k[start + (key + i / head_dim) * width + i % head_dim];
        }
        workgroupBarrier();

        let t = key + lane;
        let seen = t < key_end && (params.causal == 0u || t <= s);
        var score = 0.0;
        if seen {
            for (var d = 0u; d < head_dim; d += 1u) {
                score = fma(queries[query * head_dim + d], tile[lane * head_dim + d], score);
            }
        }
        scores[local] = select(LOWEST, score * params.scale, seen);
        workgroupBarrier();

        // the keys are read no more
        for (var i = local; i < in_tile; i += BLOCK) {
            tile[i] = v[start + (key + i / head_dim) * width + i % head_dim];
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
            if at < key_end && (params.causal == 0u || at <= s) {
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

    if s < params.steps {
        for (var own = 0u; own < OWNED; own += 1u) {
            let d = own * LANES + lane;
            if d < head_dim {
                y[start + s * width + d] = sums[own] / total;
            }
        }
    }
}
