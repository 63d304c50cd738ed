// sae_feature_sums_f32: of every feature the squares of its gradient, its bias's gradient, the steps since its last entry, its entries; and its history.
//
// slots    starts   u32 [features + 1]     read; of all features
//          order    u32 [entries, 2]       read; (entry, row), a feature's one after another
//          values   f32 [entries]          read
//          grads    f32 [entries]          read
//          x        f32 [rows, width]      read; rows of a second table begin again
//          error    f32 [tables * rows, width]   read
//          history  u32 [features, 3]      updated; steps since an entry, since one of the first table, entries of the first table
//          sums     f32 [features, 4]      write; squares, bias, steps, entries
// params   features u32 @0   first u32 @4   rows u32 @8   width u32 @12      16 bytes, uniform
// launch   grid features, folded over x and y   workgroup (64, 1, 1)   one feature a workgroup, every 64th column an invocation
// shared   260 bytes
// cost     bytes 4 * (entries * 4 + rows * width * 2 + features * 11)   flops 4 * entries * width
// numerics f32; a column's gradients are summed over entries in order, their squares over every 64th column, then a 6-step tree.

struct Params {
    features: u32,
    first: u32,
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read>       starts: array<u32>;
@group(0) @binding(1) var<storage, read>       order: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read>       values: array<f32>;
@group(0) @binding(3) var<storage, read>       grads: array<f32>;
@group(0) @binding(4) var<storage, read>       x: array<f32>;
@group(0) @binding(5) var<storage, read>       error: array<f32>;
@group(0) @binding(6) var<storage, read_write> history: array<u32>;
@group(0) @binding(7) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(8) var<uniform>             params: Params;

const BLOCK: u32 = 64u;
const HISTORY: u32 = 3u;
const MOST: u32 = 0xffffffffu;

var<workgroup> partial: array<f32, BLOCK>;

fn one_more(count: u32) -> u32 {
    return select(count + 1u, count, count == MOST);
}

@compute @workgroup_size(BLOCK)
fn sae_feature_sums_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let f = group.y * groups.x + group.x;
    if f >= params.features {
        return;
    }
    let begin = starts[params.first + f];
    let end = starts[params.first + f + 1u];

    var squares = 0.0;
    for (var c = lane; c < params.width; c += BLOCK) {
        var decoder = 0.0;
        var encoder = 0.0;
        for (var i = begin; i < end; i++) {
            let entry = order[i];
            decoder = fma(values[entry.x], error[entry.y * params.width + c], decoder);
            encoder = fma(grads[entry.x], x[entry.y % params.rows * params.width + c], encoder);
        }
        squares += decoder * decoder + encoder * encoder;
    }
    partial[lane] = squares;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane > 0u {
        return;
    }
    var bias = 0.0;
    var first = 0u;
    for (var i = begin; i < end; i++) {
        bias += grads[order[i].x];
        first += select(0u, 1u, order[i].y < params.rows);
    }
    let at = f * HISTORY;
    let steps = one_more(history[at]);
    history[at] = select(0u, steps, begin == end);
    history[at + 1u] = select(0u, one_more(history[at + 1u]), first == 0u);
    history[at + 2u] += first;
    sums[f] = vec4(partial[0] + bias * bias, bias, f32(steps), f32(end - begin));
}
