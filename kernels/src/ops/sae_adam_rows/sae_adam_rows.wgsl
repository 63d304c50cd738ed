// sae_adam_rows_f32: a step of Adam for every row of table that has entries, of the gradient g = rates[0] * sum of coefs[entry] * inputs[row].
//
// slots    table    f32 [features, width]          updated; rows without entries are not touched
//          moments  f32 [features, count, width]   updated; v, then m where count is 2, else m is g
//          starts   u32 [all features + 1]         read
//          order    u32 [entries, 2]               read; (entry, row), a feature's one after another
//          coefs    f32 [entries]                  read
//          inputs   f32 [rows, width]              read; rows behind the last begin again
//          sums     f32 [features, 4]              read; column 2, the steps since the row last moved
//          rates    f32 [4]                        read
// params   features u32 @0   first u32 @4   rows u32 @8   width u32 @12   count u32 @16   unit u32 @20   log_keep1 f32 @24
//          fresh1 f32 @28   log_keep2 f32 @32   fresh2 f32 @36   eps f32 @40   pad @44      48 bytes, uniform
// launch   grid features, folded over x and y   workgroup (64, 1, 1)   one feature a workgroup, every 64th column an invocation
// shared   256 bytes
// cost     bytes at most 4 * (rows with entries * width * 2 * (1 + count) + 3 * entries + rows * width + features)
//          flops 2 * entries * width + 12 * rows with entries * width
// numerics f32; a gradient is summed over entries in order; powers by exp2. With unit 1 a row is divided by the root of the sum of its
//          squares, over every 64th column, then a 6-step tree.

struct Params {
    features: u32,
    first: u32,
    rows: u32,
    width: u32,
    count: u32,
    unit: u32,
    log_keep1: f32,
    fresh1: f32,
    log_keep2: f32,
    fresh2: f32,
    eps: f32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> table: array<f32>;
@group(0) @binding(1) var<storage, read_write> moments: array<f32>;
@group(0) @binding(2) var<storage, read>       starts: array<u32>;
@group(0) @binding(3) var<storage, read>       order: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read>       coefs: array<f32>;
@group(0) @binding(5) var<storage, read>       inputs: array<f32>;
@group(0) @binding(6) var<storage, read>       sums: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read>       rates: array<f32>;
@group(0) @binding(8) var<uniform>             params: Params;

const BLOCK: u32 = 64u;

var<workgroup> partial: array<f32, BLOCK>;

@compute @workgroup_size(BLOCK)
fn sae_adam_rows_f32(
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
    if begin == end {
        return;
    }
    let keep1 = exp2(sums[f].z * params.log_keep1);
    let keep2 = exp2(sums[f].z * params.log_keep2);
    let row = f * params.width;
    let second = f * params.count * params.width;

    var squares = 0.0;
    for (var c = lane; c < params.width; c += BLOCK) {
        var g = 0.0;
        for (var i = begin; i < end; i++) {
            g = fma(coefs[order[i].x], inputs[order[i].y % params.rows * params.width + c], g);
        }
        g *= rates[0];
        let v = keep2 * moments[second + c] + params.fresh2 * g * g;
        moments[second + c] = v;
        var m = g;
        if params.count == 2u {
            let at = second + params.width + c;
            m = keep1 * moments[at] + params.fresh1 * g;
            moments[at] = m;
        }
        let moved = table[row + c] - rates[1] * m / (rates[2] * sqrt(v) + params.eps);
        table[row + c] = moved;
        squares = fma(moved, moved, squares);
    }
    if params.unit == 0u {
        return;
    }
    partial[lane] = squares;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    let square = workgroupUniformLoad(&partial[0]);
    if square > 0.0 {
        let length = sqrt(square);
        for (var c = lane; c < params.width; c += BLOCK) {
            table[row + c] /= length;
        }
    }
}
