// layer_norm_half: y = half((x - mean) * inverseSqrt(var + eps) * gamma + beta), over each row.
//
// slots    x      f32 [rows, cols]   read
//          gamma  f32 [cols]         read
//          beta   f32 [cols]         read
//          y      [rows, cols]       write; f16 or bf16 packed in pairs, the spare half of an odd end 0
// params   rows u32 @0   cols u32 @4   eps f32 @8   pad @12      16 bytes, uniform
// launch   grid ceil(rows / 2), folded over x and y   workgroup (128, 1, 1)   two rows per workgroup: where cols is odd
//          they share a word, and no other rows do
// shared   1024 bytes
// cost     bytes 6 * rows * cols + 8 * cols   flops 8 * rows * cols
// numerics f32; two passes, each invocation sums cols / 128 values, then a 7-step tree. The result is rounded once more,
//          to nearest even, in integer arithmetic on bits.

struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       gamma: array<f32>;
@group(0) @binding(2) var<storage, read>       beta: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 128u;

// What y holds: 1 f16, 2 bf16.
override y_type: u32 = 1u;

var<workgroup> partial: array<vec2<f32>, BLOCK>;

// Sum of one pair per invocation, returned to all of them.
fn block_sum(lane: u32, value: vec2<f32>) -> vec2<f32> {
    partial[lane] = value;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    let sum = workgroupUniformLoad(&partial[0]);
    return sum;
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

fn narrow(v: f32) -> u32 {
    if y_type == 1u {
        return to_f16(bitcast<u32>(v));
    }
    return to_bf16(bitcast<u32>(v));
}

@compute @workgroup_size(BLOCK)
fn layer_norm_half(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = 2u * (group.y * groups.x + group.x);
    if row >= params.rows {
        return;
    }
    let cols = params.cols;
    // the second row of the last group may not be there; the first is then taken twice and written once
    let there = min(params.rows - row, 2u);
    let start = vec2<u32>(row * cols, (row + there - 1u) * cols);

    var sum = vec2<f32>(0.0);
    for (var c = lane; c < cols; c += BLOCK) {
        sum += vec2<f32>(x[start.x + c], x[start.y + c]);
    }
    let mean = block_sum(lane, sum) / f32(cols);

    sum = vec2<f32>(0.0);
    for (var c = lane; c < cols; c += BLOCK) {
        let d = vec2<f32>(x[start.x + c], x[start.y + c]) - mean;
        sum = fma(d, d, sum);
    }
    let scale = inverseSqrt(block_sum(lane, sum) / f32(cols) + params.eps);

    // word w of the group holds its values 2 w and 2 w + 1; `values` are there
    let values = there * cols;
    let first = row / 2u * cols;
    for (var w = lane; w < (values + 1u) / 2u; w += BLOCK) {
        var word = 0u;
        for (var k = 0u; k < 2u; k++) {
            let i = 2u * w + k;
            if i < values {
                let second = i >= cols;
                let c = select(i, i - cols, second);
                let d = x[start.x + i] - select(mean.x, mean.y, second);
                word |= narrow(fma(d * select(scale.x, scale.y, second), gamma[c], beta[c])) << (16u * k);
            }
        }
        y[first + w] = word;
    }
}
