// sae_batch_top_k_f32: values above 0 but below the most-th largest become 0; threshold = keep threshold + (1 - keep) that one.
//
// slots    values     f32 [elements]   update, as bits
//          threshold  f32 [1]          update; stays where no value is above 0
//          keep       f32 [1]          read
// params   elements u32 @0   most u32 @4   pad @8      16 bytes, uniform
// launch   grid 1   workgroup (256, 1, 1)   all of it: three looks for the digits of the least that stays, one to drop
// shared   8,332 bytes: how many values have each digit
// cost     bytes 8 * elements + 12   flops 0
// numerics whole numbers: values above 0 are in the order of their bits. The threshold in f32.

struct Params {
    elements: u32,
    most: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@group(0) @binding(1) var<storage, read_write> threshold: array<f32>;
@group(0) @binding(2) var<storage, read>       keep: array<f32>;
@group(0) @binding(3) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
// Values of the longest digit.
const BINS: u32 = 2048u;
// Parts that the digits are counted in first.
const PARTS: u32 = 32u;
const PART: u32 = BINS / PARTS;
const INFINITY: u32 = 0x7f800000u;

var<workgroup> counts: array<atomic<u32>, BINS>;
var<workgroup> parts: array<u32, PARTS>;
// Digits of the least so far, and how many values of these digits are to stay.
var<workgroup> chosen: u32;
var<workgroup> wanted: u32;

fn is_above(bits: u32) -> bool {
    return bits != 0u && bits <= INFINITY;
}

/// The next digit of the least: bits high - 1 to shift, of values whose bits from high on are those chosen.
fn choose(high: u32, shift: u32, lane: u32) {
    for (var bin = lane; bin < BINS; bin += BLOCK) {
        atomicStore(&counts[bin], 0u);
    }
    workgroupBarrier();
    let digits = (1u << (high - shift)) - 1u;
    for (var i = lane; i < params.elements; i += BLOCK) {
        let bits = values[i];
        if is_above(bits) && bits >> high == chosen {
            atomicAdd(&counts[(bits >> shift) & digits], 1u);
        }
    }
    workgroupBarrier();
    if lane < PARTS {
        var sum = 0u;
        for (var i = 0u; i < PART; i++) {
            sum += atomicLoad(&counts[lane * PART + i]);
        }
        parts[lane] = sum;
    }
    workgroupBarrier();
    if lane == 0u {
        var all = 0u;
        for (var i = 0u; i < PARTS; i++) {
            all += parts[i];
        }
        var left = min(wanted, all);
        var digit = 0u;
        if left > 0u {
            var part = PARTS - 1u;
            while parts[part] < left {
                left -= parts[part];
                part -= 1u;
            }
            digit = part * PART + PART - 1u;
            while atomicLoad(&counts[digit]) < left {
                left -= atomicLoad(&counts[digit]);
                digit -= 1u;
            }
        }
        chosen = (chosen << (high - shift)) | digit;
        wanted = left;
    }
    workgroupBarrier();
}

@compute @workgroup_size(BLOCK)
fn sae_batch_top_k_f32(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        chosen = 0u;
        wanted = params.most;
    }
    workgroupBarrier();
    choose(31u, 20u, lane);
    choose(20u, 10u, lane);
    choose(10u, 0u, lane);
    // none is above 0
    if workgroupUniformLoad(&wanted) == 0u {
        return;
    }
    let least = workgroupUniformLoad(&chosen);
    for (var i = lane; i < params.elements; i += BLOCK) {
        let bits = values[i];
        if is_above(bits) && bits < least {
            values[i] = 0u;
        }
    }
    if lane == 0u {
        threshold[0] = keep[0] * threshold[0] + (1.0 - keep[0]) * bitcast<f32>(least);
    }
}
