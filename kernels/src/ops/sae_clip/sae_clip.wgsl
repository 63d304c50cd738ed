// sae_clip_f32: norm = scale * sqrt(sum of sums[f, 0] + sum of bias_grad^2); rates = (scale * min(1, max_norm / (norm + 1e-6)), schedule, norm).
//
// slots    sums       f32 [features, 4]   read; column 0
//          bias_grad  f32 [width, 1]      read
//          schedule   f32 [2]             read
//          rates      f32 [4]             write
// params   features u32 @0   width u32 @4   scale f32 @8   max_norm f32 @12      16 bytes, uniform
// launch   grid 1   workgroup (256, 1, 1)   all of it
// shared   1024 bytes
// cost     bytes 4 * (features + width + 6)   flops features + 2 * width
// numerics f32; an invocation sums every 256th value in order, then an 8-step tree.

struct Params {
    features: u32,
    width: u32,
    scale: f32,
    max_norm: f32,
}

@group(0) @binding(0) var<storage, read>       sums: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read>       bias_grad: array<f32>;
@group(0) @binding(2) var<storage, read>       schedule: array<f32>;
@group(0) @binding(3) var<storage, read_write> rates: array<f32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

var<workgroup> partial: array<f32, BLOCK>;

@compute @workgroup_size(BLOCK)
fn sae_clip_f32(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var f = lane; f < params.features; f += BLOCK) {
        sum += sums[f].x;
    }
    for (var c = lane; c < params.width; c += BLOCK) {
        sum = fma(bias_grad[c], bias_grad[c], sum);
    }
    partial[lane] = sum;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        let norm = params.scale * sqrt(partial[0]);
        let most = params.max_norm / (norm + 1e-6);
        rates[0] = select(params.scale, params.scale * most, params.max_norm > 0.0 && most < 1.0);
        rates[1] = schedule[0];
        rates[2] = schedule[1];
        rates[3] = norm;
    }
}
