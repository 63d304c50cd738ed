// sample_u32: tokens[take, q] = a code drawn from softmax(g / temperature) over the top k and the top p, or the largest; g = logits, guided.
//
// slots    logits     f32 [takes or 2 * takes, codebooks * entries]   read; conditional rows, then unconditional ones
//          settings   u32 [takes, 12]            read; seed low, seed high, row key, column offset, greedy, guidance, temperature,
//                                                top_k, top_p (f32 as bits), 3 unused
//          positions  u32 [takes or 2 * takes]   read
//          tokens     u32 [takes, codebooks]     write; u32::MAX where a g is NaN, the largest is not finite or no mass is left
// params   takes u32 @0   codebooks u32 @4   entries u32 @8 (at most 24576)   paired u32 @12      16 bytes, uniform
// launch   grid takes * codebooks, folded over x and y   workgroup (256, 1, 1)   one token a workgroup
// shared   10240 bytes: keys of the first 2048 codes, and what invocations add up
// cost     bytes 4 * (rows * codebooks * entries + 13 * takes + takes * codebooks)
//          flops takes * codebooks * entries * (5, or 8 with pairs)
// numerics f32; the guided sum fused or not, as the device has it. k-th largest and share of the mass are found bit by bit, from
//          the highest in which keys differ: u32 in the order of their f32. A sum of masses adds every 256th code in order, then a tree; the draw
//          adds runs of ceil(entries / 256) codes in order, over a prefix sum by doubling. exp as the device has it.

struct Params {
    takes: u32,
    codebooks: u32,
    entries: u32,
    paired: u32,
}

@group(0) @binding(0) var<storage, read>       logits: array<f32>;
@group(0) @binding(1) var<storage, read>       settings: array<u32>;
@group(0) @binding(2) var<storage, read>       positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
const CACHED: u32 = 2048u;
/// Keys of minus and plus infinity: NaN lies outside of them.
const LEAST_KEY: u32 = 0x007fffffu;
const MOST_KEY: u32 = 0xff800000u;
const NO_CODE: u32 = 0xffffffffu;

var<workgroup> cached: array<u32, CACHED>;
var<workgroup> words: array<u32, BLOCK>;
var<workgroup> sums: array<f32, BLOCK>;

/// What a workgroup draws from: its place in logits, and its settings.
struct Draw {
    first: u32,
    twin: u32,
    guidance: f32,
    largest: f32,
    temperature: f32,
}

/// A whole number whose order is that of the guided logit; both zeros have one key.
fn compute_key(draw: Draw, e: u32) -> u32 {
    var g = logits[draw.first + e];
    if params.paired == 1u {
        let uncond = logits[draw.twin + e];
        g = uncond + draw.guidance * (g - uncond);
    }
    let bits = bitcast<u32>(g);
    if bits >= 0x80000000u {
        return select(~bits, 0x80000000u, bits == 0x80000000u);
    }
    return bits | 0x80000000u;
}

fn key_of(draw: Draw, e: u32) -> u32 {
    if e < CACHED {
        return cached[e];
    }
    return compute_key(draw, e);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

fn mass_of(draw: Draw, key: u32) -> f32 {
    if key == LEAST_KEY {
        return 0.0;
    }
    return exp((value_of(key) - draw.largest) / draw.temperature);
}

fn smallest_of_all(lane: u32, own: u32) -> u32 {
    words[lane] = own;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            words[lane] = min(words[lane], words[lane + half]);
        }
    }
    return workgroupUniformLoad(&words[0]);
}

fn count_of_all(lane: u32, own: u32) -> u32 {
    words[lane] = own;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            words[lane] += words[lane + half];
        }
    }
    return workgroupUniformLoad(&words[0]);
}

fn sum_of_all(lane: u32, own: f32) -> f32 {
    sums[lane] = own;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            sums[lane] += sums[lane + half];
        }
    }
    return workgroupUniformLoad(&sums[0]);
}

/// The highest bit in which two keys differ; 0 where they are equal.
fn highest_difference(a: u32, b: u32) -> u32 {
    if a == b {
        return 0u;
    }
    return 1u << firstLeadingBit(a ^ b);
}

/// Mass of the codes whose keys are at least `least`.
fn mass_from(draw: Draw, lane: u32, least: u32) -> f32 {
    var own = 0.0;
    for (var e = lane; e < params.entries; e += BLOCK) {
        let key = key_of(draw, e);
        if key >= least {
            own += mass_of(draw, key);
        }
    }
    return sum_of_all(lane, own);
}

/// Upper half of a product, from products of halves.
fn mul_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let left = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let right = (a & 0xffffu) * (b >> 16u) + (left & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u);
}

/// First word of Philox 4x32-10 (Salmon et al. 2011).
fn philox(start: vec4<u32>, seed: vec2<u32>) -> u32 {
    var counter = start;
    var key = seed;
    for (var round = 0u; round < 10u; round += 1u) {
        let high_x = mul_high(0xd2511f53u, counter.x);
        let high_z = mul_high(0xcd9e8d57u, counter.z);
        counter = vec4<u32>(
            high_z ^ counter.y ^ key.x,
            0xcd9e8d57u * counter.z,
            high_x ^ counter.w ^ key.y,
            0xd2511f53u * counter.x,
        );
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return counter.x;
}

@compute @workgroup_size(BLOCK)
fn sample_u32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let cell = group.y * groups.x + group.x;
    let cells = params.takes * params.codebooks;
    if cell >= cells {
        return;
    }
    let take = cell / params.codebooks;
    let setting = 12u * take;
    let top_k = settings[setting + 7u];
    let top_p = bitcast<f32>(settings[setting + 8u]);
    var draw: Draw;
    draw.first = cell * params.entries;
    draw.twin = (cells + cell) * params.entries;
    draw.guidance = bitcast<f32>(settings[setting + 5u]);
    draw.temperature = bitcast<f32>(settings[setting + 6u]);

    var own_least = NO_CODE;
    var own_most = 0u;
    for (var e = lane; e < params.entries; e += BLOCK) {
        let key = compute_key(draw, e);
        if e < CACHED {
            cached[e] = key;
        }
        own_least = min(own_least, key);
        own_most = max(own_most, key);
    }
    let least = smallest_of_all(lane, own_least);
    let most = ~smallest_of_all(lane, ~own_most);
    if least < LEAST_KEY || most <= LEAST_KEY || most >= MOST_KEY {
        if lane == 0u {
            tokens[cell] = NO_CODE;
        }
        return;
    }
    if settings[setting + 4u] != 0u {
        var own = NO_CODE;
        for (var e = lane; e < params.entries && own == NO_CODE; e += BLOCK) {
            if key_of(draw, e) == most {
                own = e;
            }
        }
        let token = smallest_of_all(lane, own);
        if lane == 0u {
            tokens[cell] = token;
        }
        return;
    }
    draw.largest = value_of(most);

    // the largest key that at least top_k keys reach; the search ends early where as many as wanted do
    var kept = least;
    if top_k > 0u && top_k < params.entries {
        var bit = highest_difference(least, most);
        var reached = most & ~((bit << 1u) - 1u);
        var enough = params.entries;
        for (; bit > 0u && enough != top_k; bit >>= 1u) {
            var own = 0u;
            for (var e = lane; e < params.entries; e += BLOCK) {
                own += select(0u, 1u, key_of(draw, e) >= (reached | bit));
            }
            let count = count_of_all(lane, own);
            if count >= top_k {
                reached |= bit;
                enough = count;
            }
        }
        kept = max(kept, reached);
    }

    // the largest key from which on the mass is at least its share
    if top_p > 0.0 && top_p < 1.0 {
        let wanted = top_p * mass_from(draw, lane, kept);
        var bit = highest_difference(kept, most);
        var reached = most & ~((bit << 1u) - 1u);
        for (; bit > 0u; bit >>= 1u) {
            let candidate = reached | bit;
            if candidate <= kept || mass_from(draw, lane, candidate) >= wanted {
                reached = candidate;
            }
        }
        kept = max(kept, reached);
    }

    // sums[lane] = mass up to the end of the lane's run of codes
    let run = (params.entries + BLOCK - 1u) / BLOCK;
    let begin = min(lane * run, params.entries);
    let end = min(begin + run, params.entries);
    var own_mass = 0.0;
    for (var e = begin; e < end; e += 1u) {
        let key = key_of(draw, e);
        if key >= kept {
            own_mass += mass_of(draw, key);
        }
    }
    sums[lane] = own_mass;
    for (var reach = 1u; reach < BLOCK; reach *= 2u) {
        workgroupBarrier();
        var before = 0.0;
        if lane >= reach {
            before = sums[lane - reach];
        }
        workgroupBarrier();
        sums[lane] += before;
    }
    workgroupBarrier();
    let counter = vec4<u32>(
        settings[setting + 2u],
        settings[setting + 3u] + positions[take],
        cell % params.codebooks,
        0u,
    );
    let word = philox(counter, vec2<u32>(settings[setting], settings[setting + 1u]));
    let passed = f32(word >> 8u) * 0x1p-24 * sums[BLOCK - 1u];
    var sum = 0.0;
    if lane > 0u {
        sum = sums[lane - 1u];
    }
    var token = NO_CODE;
    var last = 0u;
    for (var e = begin; e < end && token == NO_CODE; e += 1u) {
        let key = key_of(draw, e);
        if key >= kept {
            let mass = mass_of(draw, key);
            sum += mass;
            if mass > 0.0 {
                last = e + 1u;
                if sum > passed {
                    token = e;
                }
            }
        }
    }
    let first = smallest_of_all(lane, token);
    // rounding may let no sum pass: then the last code with a mass
    let final_code = ~smallest_of_all(lane, ~last) - 1u;
    if lane == 0u {
        tokens[cell] = select(first, final_code, first == NO_CODE);
    }
}
