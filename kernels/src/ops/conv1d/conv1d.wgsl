// conv1d_f32: y = after(bias + sum over taps and channels of before(padded x) * weight) + residual, channels last.
//
// slots    x         f32 [batch, in_steps, in_channels]         read
//          weight    f32 [out_channels, kernel, in_channels]    read
//          bias      f32 [out_channels]                         read; unused unless has_bias
//          residual  f32 [batch, out_steps, out_channels]       read; unused unless has_residual
//          y         f32 [batch, out_steps, out_channels]       write
// params   batch u32 @0   in_steps u32 @4   in_channels u32 @8   out_steps u32 @12   out_channels u32 @16
//          kernel u32 @20   stride u32 @24   dilation u32 @28   pad_left u32 @32   pad_mode u32 @36 (0 zero, 1 reflect,
//          2 replicate)   reflect_steps u32 @40   input_activation u32 @44   output_activation u32 @48 (0 none, 1 ELU)
//          has_bias u32 @52   has_residual u32 @56   pad @60      64 bytes, uniform
// launch   grid batch * ceil(out_steps / 64) * ceil(out_channels / 64), folded over x and y   workgroup (256, 1, 1)
//          one workgroup a tile of 64 steps by 64 channels, one invocation 4 by 4 of it
// shared   8704 bytes
// cost     bytes 4 * (x + weight + bias + residual + y)   flops 2 * batch * out_steps * out_channels * kernel * in_channels
// numerics f32; each element sums kernel * in_channels products in order (tap, channel), fused; ELU as exp(v) - 1.

struct Params {
    batch: u32,
    in_steps: u32,
    in_channels: u32,
    out_steps: u32,
    out_channels: u32,
    kernel: u32,
    stride: u32,
    dilation: u32,
    pad_left: u32,
    pad_mode: u32,
    reflect_steps: u32,
    input_activation: u32,
    output_activation: u32,
    has_bias: u32,
    has_residual: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       weight: array<f32>;
@group(0) @binding(2) var<storage, read>       bias: array<f32>;
@group(0) @binding(3) var<storage, read>       residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform>             params: Params;

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
const QUADS: u32 = TILE / 4u;
const BLOCK: u32 = QUADS * QUADS;
// one more than QUADS, so that the 16 depths a quad is stored at fall into different banks
const PITCH: u32 = QUADS + 1u;

// [depth, quad of steps] and [depth, quad of channels]
var<workgroup> windows: array<vec4<f32>, DEPTH * PITCH>;
var<workgroup> taps: array<vec4<f32>, DEPTH * PITCH>;

fn elu(v: f32) -> f32 {
    return select(exp(min(v, 0.0)) - 1.0, v, v > 0.0);
}

// Step of x at step i of the padded input; outside of 0 .. in_steps where that is zero.
fn source(i: u32) -> i32 {
    let j = i32(i) - i32(params.pad_left);
    let last = i32(params.reflect_steps) - 1;
    switch params.pad_mode {
        case 1u: {
            return select(abs(j), 2 * last - j, j > last);
        }
        case 2u: {
            return clamp(j, 0, i32(params.in_steps) - 1);
        }
        default: {
            return j;
        }
    }
}

// Channel c of tap k in the window of output step t; 0 past the last step.
fn window_value(b: u32, t: u32, k: u32, c: u32) -> f32 {
    if t >= params.out_steps {
        return 0.0;
    }
    let j = source(t * params.stride + k * params.dilation);
    if j < 0 || j >= i32(params.in_steps) {
        return 0.0;
    }
    let v = x[(b * params.in_steps + u32(j)) * params.in_channels + c];
    return select(v, elu(v), params.input_activation == 1u);
}

// Weight at depth d of output channel o; 0 past the last channel.
fn weight_value(o: u32, depth: u32, d: u32) -> f32 {
    if o >= params.out_channels {
        return 0.0;
    }
    return weight[o * depth + d];
}

fn store(b: u32, t: u32, first_out: u32, sums: vec4<f32>) {
    if t >= params.out_steps {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        let o = first_out + i;
        if o < params.out_channels {
            let at = (b * params.out_steps + t) * params.out_channels + o;
            var v = sums[i];
            if params.has_bias == 1u {
                v += bias[o];
            }
            if params.output_activation == 1u {
                v = elu(v);
            }
            if params.has_residual == 1u {
                v += residual[at];
            }
            y[at] = v;
        }
    }
}

@compute @workgroup_size(BLOCK)
fn conv1d_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = group.y * groups.x + group.x;
    let out_tiles = (params.out_channels + TILE - 1u) / TILE;
    let step_tiles = (params.out_steps + TILE - 1u) / TILE;
    let b = tile / (out_tiles * step_tiles);
    if b >= params.batch {
        return;
    }
    let first_step = tile / out_tiles % step_tiles * TILE;
    let first_out = tile % out_tiles * TILE;
    let depth = params.kernel * params.in_channels;

    // while loading, an invocation fills one quad at one depth; while multiplying, it owns a quad of each
    let load_depth = lane % DEPTH;
    let load_quad = lane / DEPTH;
    let step_quad = lane / QUADS;
    let out_quad = lane % QUADS;

    var sums: array<vec4<f32>, 4>;
    for (var start = 0u; start < depth; start += DEPTH) {
        var window = vec4<f32>(0.0);
        var tap = vec4<f32>(0.0);
        let d = start + load_depth;
        if d < depth {
            let k = d / params.in_channels;
            let c = d % params.in_channels;
            let t = first_step + 4u * load_quad;
            window = vec4<f32>(
                window_value(b, t, k, c),
                window_value(b, t + 1u, k, c),
                window_value(b, t + 2u, k, c),
                window_value(b, t + 3u, k, c),
            );
            let o = first_out + 4u * load_quad;
            tap = vec4<f32>(
                weight_value(o, depth, d),
                weight_value(o + 1u, depth, d),
                weight_value(o + 2u, depth, d),
                weight_value(o + 3u, depth, d),
            );
        }
        windows[load_depth * PITCH + load_quad] = window;
        taps[load_depth * PITCH + load_quad] = tap;
        workgroupBarrier();
        for (var i = 0u; i < min(DEPTH, depth - start); i++) {
            let v = windows[i * PITCH + step_quad];
            let w = taps[i * PITCH + out_quad];
            sums[0] = fma(vec4<f32>(v.x), w, sums[0]);
            sums[1] = fma(vec4<f32>(v.y), w, sums[1]);
            sums[2] = fma(vec4<f32>(v.z), w, sums[2]);
            sums[3] = fma(vec4<f32>(v.w), w, sums[3]);
        }
        workgroupBarrier();
    }

    let t = first_step + 4u * step_quad;
    let o = first_out + 4u * out_quad;
    store(b, t, o, sums[0]);
    store(b, t + 1u, o, sums[1]);
    store(b, t + 2u, o, sums[2]);
    store(b, t + 3u, o, sums[3]);
}
