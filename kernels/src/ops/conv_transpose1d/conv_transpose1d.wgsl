// conv_transpose1d_f32: y = after(bias + sum over taps and channels of before(x) * weight), trimmed, channels last.
//
// slots    x       f32 [batch, in_steps, in_channels]                 read
//          weight  f32 [stride * out_channels, taps, in_channels]     read
//          bias    f32 [out_channels]                                 read; unused unless has_bias
//          y       f32 [batch, out_steps, out_channels]               write
// params   batch u32 @0   in_steps u32 @4   in_channels u32 @8   out_steps u32 @12   out_channels u32 @16   taps u32 @20
//          stride u32 @24   trim_left u32 @28   input_activation u32 @32   output_activation u32 @36 (0 none, 1 ELU)
//          has_bias u32 @40   pad @44      48 bytes, uniform
// launch   grid batch * ceil((in_steps + taps - 1) / 64) * ceil(stride * out_channels / 64), folded over x and y
//          workgroup (256, 1, 1)   one workgroup 64 rows of stride raw steps by 64 of their values, one invocation 4 by 4
// shared   8704 bytes
// cost     bytes 4 * (x + weight + bias + y)   flops 2 * batch * in_steps * in_channels * kernel * out_channels
// numerics f32; each element sums taps * in_channels products in order (tap, channel), fused; ELU as exp(v) - 1.

struct Params {
    batch: u32,
    in_steps: u32,
    in_channels: u32,
    out_steps: u32,
    out_channels: u32,
    taps: u32,
    stride: u32,
    trim_left: u32,
    input_activation: u32,
    output_activation: u32,
    has_bias: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       weight: array<f32>;
@group(0) @binding(2) var<storage, read>       bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform>             params: Params;

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
const QUADS: u32 = TILE / 4u;
const BLOCK: u32 = QUADS * QUADS;
// one more than QUADS, so that the 16 depths a quad is stored at fall into different banks
const PITCH: u32 = QUADS + 1u;

// [depth, quad of rows] and [depth, quad of phases]; a phase is a channel of one of the `stride` steps of a row
var<workgroup> windows: array<vec4<f32>, DEPTH * PITCH>;
var<workgroup> kernels: array<vec4<f32>, DEPTH * PITCH>;

fn elu(v: f32) -> f32 {
    return select(exp(min(v, 0.0)) - 1.0, v, v > 0.0);
}

// Channel c of tap i in row j: step j - (taps - 1) + i of x, 0 outside of it.
fn window_value(b: u32, j: u32, i: u32, c: u32) -> f32 {
    let step = j + i + 1u;
    if step < params.taps || step - params.taps >= params.in_steps {
        return 0.0;
    }
    let v = x[(b * params.in_steps + step - params.taps) * params.in_channels + c];
    return select(v, elu(v), params.input_activation == 1u);
}

// Weight at depth d of a phase; 0 past the last.
fn weight_value(phase: u32, phases: u32, depth: u32, d: u32) -> f32 {
    if phase >= phases {
        return 0.0;
    }
    return weight[phase * depth + d];
}

fn store(b: u32, j: u32, first_phase: u32, phases: u32, sums: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        let phase = first_phase + i;
        let raw = j * params.stride + phase / params.out_channels;
        if phase < phases && raw >= params.trim_left && raw - params.trim_left < params.out_steps {
            let o = phase % params.out_channels;
            var v = sums[i];
            if params.has_bias == 1u {
                v += bias[o];
            }
            if params.output_activation == 1u {
                v = elu(v);
            }
            y[(b * params.out_steps + raw - params.trim_left) * params.out_channels + o] = v;
        }
    }
}

@compute @workgroup_size(BLOCK)
fn conv_transpose1d_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = group.y * groups.x + group.x;
    let phases = params.stride * params.out_channels;
    let phase_tiles = (phases + TILE - 1u) / TILE;
    let row_tiles = (params.in_steps + params.taps - 1u + TILE - 1u) / TILE;
    let b = tile / (phase_tiles * row_tiles);
    if b >= params.batch {
        return;
    }
    let first_row = tile / phase_tiles % row_tiles * TILE;
    let first_phase = tile % phase_tiles * TILE;
    let depth = params.taps * params.in_channels;

    // while loading, an invocation fills one quad at one depth; while multiplying, it owns a quad of each
    let load_depth = lane % DEPTH;
    let load_quad = lane / DEPTH;
    let row_quad = lane / QUADS;
    let phase_quad = lane % QUADS;

    var sums: array<vec4<f32>, 4>;
    for (var start = 0u; start < depth; start += DEPTH) {
        var window = vec4<f32>(0.0);
        var values = vec4<f32>(0.0);
        let d = start + load_depth;
        if d < depth {
            let i = d / params.in_channels;
            let c = d % params.in_channels;
            let j = first_row + 4u * load_quad;
            window = vec4<f32>(
                window_value(b, j, i, c),
                window_value(b, j + 1u, i, c),
                window_value(b, j + 2u, i, c),
                window_value(b, j + 3u, i, c),
            );
            let phase = first_phase + 4u * load_quad;
            values = vec4<f32>(
                weight_value(phase, phases, depth, d),
                weight_value(phase + 1u, phases, depth, d),
                weight_value(phase + 2u, phases, depth, d),
                weight_value(phase + 3u, phases, depth, d),
            );
        }
        windows[load_depth * PITCH + load_quad] = window;
        kernels[load_depth * PITCH + load_quad] = values;
        workgroupBarrier();
        for (var i = 0u; i < min(DEPTH, depth - start); i++) {
            let v = windows[i * PITCH + row_quad];
            let w = kernels[i * PITCH + phase_quad];
            sums[0] = fma(vec4<f32>(v.x), w, sums[0]);
            sums[1] = fma(vec4<f32>(v.y), w, sums[1]);
            sums[2] = fma(vec4<f32>(v.z), w, sums[2]);
            sums[3] = fma(vec4<f32>(v.w), w, sums[3]);
        }
        workgroupBarrier();
    }

    let j = first_row + 4u * row_quad;
    let phase = first_phase + 4u * phase_quad;
    store(b, j, phase, phases, sums[0]);
    store(b, j + 1u, phase, phases, sums[1]);
    store(b, j + 2u, phase, phases, sums[2]);
    store(b, j + 3u, phase, phases, sums[3]);
}
