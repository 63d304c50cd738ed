// attention_merge_f32: y[r, h] = sum_c w[c] sums[c] / sum_c w[c] n[c], w[c] = e^(m[c] - max m); 0 where the divisor is 0.
//
// slots    parts  f32 [rows, heads, chunks, head_dim + 2]   read; head_dim sums, then m, then n
//          y      f32 [rows, heads * head_dim]              write
// params   rows u32 @0   heads u32 @4   chunks u32 @8   head_dim u32 @12      16 bytes, uniform
// launch   grid ceil(rows * heads * head_dim / 128), folded over x and y   workgroup (128, 1, 1)   a value per invocation
// shared   none
// cost     bytes 4 * rows * heads * (chunks * (head_dim + 2) + head_dim)
//          flops rows * heads * (chunks * (2 * head_dim + 8) + head_dim)
// numerics f32; the largest m first, then chunks in order.

struct Params {
    rows: u32,
    heads: u32,
    chunks: u32,
    head_dim: u32,
}

@group(0) @binding(0) var<storage, read>       parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform>             params: Params;

const BLOCK: u32 = 128u;

const LOWEST: f32 = -3.4028234e38;

@compute @workgroup_size(BLOCK)
fn attention_merge_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = group.y * groups.x + group.x;
    let values = params.rows * params.heads * params.head_dim;
    // the number of a value in the last blocks may pass 2^32
    if block > values / BLOCK || block * BLOCK + local >= values {
        return;
    }
    let i = block * BLOCK + local;
    let item = params.head_dim + 2u;
    let first = i / params.head_dim * params.chunks * item;
    let end = first + params.chunks * item;
    var top = LOWEST;
    for (var at = first; at < end; at += item) {
        top = max(top, parts[at + params.head_dim]);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var at = first; at < end; at += item) {
        let weight = exp(parts[at + params.head_dim] - top);
        sum = fma(weight, parts[at + i % params.head_dim], sum);
        total = fma(weight, parts[at + params.head_dim + 1u], total);
    }
    if total == 0.0 {
        y[i] = 0.0;
    } else {
        y[i] = sum / total;
    }
}
