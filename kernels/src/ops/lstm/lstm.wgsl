// lstm_f32: c = sigmoid(f) * c + sigmoid(i) * tanh(g), h = sigmoid(o) * tanh(c), y = h + residual, step by step.
//
// slots    gates     f32 [batch, steps, 4 * hidden]   read; i, f, g, o
//          weight    f32 [4 * hidden, hidden]         read; times the last h, added to gates
//          residual  f32 [batch, steps, hidden]       read; unused unless has_residual
//          y         f32 [batch, steps, hidden]       write
// params   batch u32 @0   steps u32 @4   hidden u32 @8 (at most 2048)   has_residual u32 @12      16 bytes, uniform
// launch   grid batch, folded over x and y   workgroup (256, 1, 1)   one workgroup a sequence; 16 units at a time, 16
//          invocations each along h
// shared   16384 bytes
// cost     bytes 4 * (gates + weight + residual + y)   flops 8 * batch * steps * hidden * hidden
// numerics f32; a dot product is 16 fused sums of every 16th term, added in order; sigmoid as 1 / (1 + exp(-v)), tanh as
//          1 - 2 / (1 + exp(2 v)).

struct Params {
    batch: u32,
    steps: u32,
    hidden: u32,
    has_residual: u32,
}

@group(0) @binding(0) var<storage, read>       gates: array<f32>;
@group(0) @binding(1) var<storage, read>       weight: array<f32>;
@group(0) @binding(2) var<storage, read>       residual: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform>             params: Params;

const MOST_HIDDEN: u32 = 2048u;
const BLOCK: u32 = 256u;
// units of a pass, and invocations that share a unit
const SIDE: u32 = 16u;
const PASSES: u32 = MOST_HIDDEN / SIDE;

var<workgroup> h: array<f32, MOST_HIDDEN>;
// the four gates of one pass, [unit, part]; two passes take turns, so that one barrier a pass is enough
var<workgroup> parts: array<vec4<f32>, 2 * BLOCK>;

fn sigmoid(v: f32) -> f32 {
    return 1.0 / (1.0 + exp(-v));
}

// The clamp keeps exp finite; beyond it tanh is 1 in f32.
fn tanh_of(v: f32) -> f32 {
    return 1.0 - 2.0 / (1.0 + exp(2.0 * clamp(v, -20.0, 20.0)));
}

@compute @workgroup_size(BLOCK)
fn lstm_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let b = group.y * groups.x + group.x;
    if b >= params.batch {
        return;
    }
    let hidden = params.hidden;
    let unit = lane / SIDE;
    let part = lane % SIDE;
    let passes = (hidden + SIDE - 1u) / SIDE;

    // the invocation owns the state of unit `part` of every 16th pass, from pass `unit`: units lane, lane + 256, ...
    var c: array<f32, PASSES / SIDE>;
    var next: array<f32, PASSES / SIDE>;
    for (var u = lane; u < hidden; u += BLOCK) {
        h[u] = 0.0;
        c[u / BLOCK] = 0.0;
    }
    workgroupBarrier();

    for (var t = 0u; t < params.steps; t++) {
        let step = b * params.steps + t;
        for (var pass_index = 0u; pass_index < passes; pass_index++) {
            let turn = pass_index % 2u * BLOCK;
            let row = pass_index * SIDE + unit;
            var sums = vec4<f32>(0.0);
            if row < hidden {
                for (var k = part; k < hidden; k += SIDE) {
                    let w = vec4<f32>(
                        weight[row * hidden + k],
                        weight[(hidden + row) * hidden + k],
                        weight[(2u * hidden + row) * hidden + k],
                        weight[(3u * hidden + row) * hidden + k],
                    );
                    sums = fma(w, vec4<f32>(h[k]), sums);
                }
            }
            parts[turn + lane] = sums;
            workgroupBarrier();

            let mine = pass_index * SIDE + part;
            if pass_index % SIDE == unit && mine < hidden {
                let first = step * 4u * hidden + mine;
                var gate = vec4<f32>(0.0);
                for (var i = 0u; i < SIDE; i++) {
                    gate += parts[turn + part * SIDE + i];
                }
                gate += vec4<f32>(
                    gates[first],
                    gates[first + hidden],
                    gates[first + 2u * hidden],
                    gates[first + 3u * hidden],
                );
                let slot = pass_index / SIDE;
                c[slot] = sigmoid(gate.y) * c[slot] + sigmoid(gate.x) * tanh_of(gate.z);
                next[slot] = sigmoid(gate.w) * tanh_of(c[slot]);
            }
        }
        workgroupBarrier();
        for (var u = lane; u < hidden; u += BLOCK) {
            let v = next[u / BLOCK];
            h[u] = v;
            let at = step * hidden + u;
            if params.has_residual == 1u {
                y[at] = v + residual[at];
            } else {
                y[at] = v;
            }
        }
        workgroupBarrier();
    }
}
