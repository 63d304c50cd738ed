// sae_merge_f32: indices, values = the k largest values above 0 of all lists of a row, by value, then index.
//
// slots    part_indices  u32 [rows, parts, k]   read, those of the best
//          part_values   f32 [rows, parts, k]   read, as bits: in each list from the largest down, 0 behind the last above 0, or all NaN
//          indices       u32 [rows, k]          write; 0 behind the last value above 0
//          values        f32 [rows, k]          write, as bits; 0 behind the last value above 0; NaN where the row has a list of NaN
// params   rows u32 @0   parts u32 @4 (at most 256)   k u32 @8 (at most 1024)   pad @12      16 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   a row a workgroup, a list an invocation: 31 turns for the bits of
//          the k-th largest value; then an invocation finds the places of every 256th of the best
// shared   10,376 bytes
// cost     bytes 4 * rows * (parts + 3) * k   flops 0
// numerics whole numbers: values above 0 are in the order of their bits

struct Params {
    rows: u32,
    parts: u32,
    k: u32,
    pad0: u32,
}

@group(0) @binding(0) var<storage, read>       part_indices: array<u32>;
@group(0) @binding(1) var<storage, read>       part_values: array<u32>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> values: array<u32>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
const MOST_K: u32 = 1024u;
// Bits of a value above 0.
const BITS: u32 = 31u;
const INFINITY: u32 = 0x7f800000u;
const NOT_A_NUMBER: u32 = 0x7fc00000u;

// Of each bit, how many values remain where it stays.
var<workgroup> remain: array<atomic<u32>, BITS>;
var<workgroup> spoilt: atomic<u32>;
// Of each list, how many are above the k-th largest value, and how many equal it.
var<workgroup> above: array<u32, BLOCK>;
var<workgroup> equal: array<u32, BLOCK>;
// Those of all lists that are among the best.
var<workgroup> total: u32;
var<workgroup> best_values: array<u32, MOST_K>;
var<workgroup> best_features: array<u32, MOST_K>;

@compute @workgroup_size(BLOCK)
fn sae_merge_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let list = (row * params.parts + lane) * params.k;
    let is_there = lane < params.parts;
    if lane < BITS {
        atomicStore(&remain[lane], 0u);
    }
    if lane == 0u {
        atomicStore(&spoilt, 0u);
    }
    workgroupBarrier();
    if is_there && part_values[list] > INFINITY {
        atomicStore(&spoilt, 1u);
    }

    // of the own list, low to high are at least the k-th largest value, as far as it is known; the rest of high - low are in doubt
    var least = 0u;
    var low = 0u;
    var high = select(0u, params.k, is_there);
    for (var bit = BITS; bit > 0u; bit -= 1u) {
        let tried = least | (1u << (bit - 1u));
        var first = low;
        var last = high;
        while first < last {
            let middle = (first + last) / 2u;
            if part_values[list + middle] >= tried {
                first = middle + 1u;
            } else {
                last = middle;
            }
        }
        atomicAdd(&remain[bit - 1u], first);
        workgroupBarrier();
        if atomicLoad(&remain[bit - 1u]) >= params.k {
            least = tried;
            high = first;
        } else {
            low = first;
        }
    }

    // low are above the k-th largest value, high - low equal it; where that is 0, there are fewer than k above 0
    above[lane] = low;
    equal[lane] = select(0u, high - low, least > 0u);
    workgroupBarrier();
    var all_above = 0u;
    for (var i = 0u; i < params.parts; i += 1u) {
        all_above += above[i];
    }
    var before = 0u;
    var equal_before = 0u;
    for (var i = 0u; i < lane; i += 1u) {
        before += above[i];
        equal_before += equal[i];
    }
    // of equals those of the first lists
    let wanted = params.k - all_above;
    let taken = low + min(equal[lane], wanted - min(wanted, equal_before));
    before += min(wanted, equal_before);
    if is_there && atomicLoad(&spoilt) == 0u {
        for (var i = 0u; i < taken; i += 1u) {
            best_values[before + i] = part_values[list + i];
            best_features[before + i] = part_indices[list + i];
        }
    }
    if lane == BLOCK - 1u {
        total = before + taken;
    }
    workgroupBarrier();
    let found = select(total, 0u, atomicLoad(&spoilt) == 1u);
    let rest = select(0u, NOT_A_NUMBER, atomicLoad(&spoilt) == 1u);

    for (var i = lane; i < found; i += BLOCK) {
        let value = best_values[i];
        let feature = best_features[i];
        var place = 0u;
        for (var j = 0u; j < found; j += 1u) {
            let other = best_values[j];
            if other > value || (other == value && best_features[j] < feature) {
                place += 1u;
            }
        }
        values[row * params.k + place] = value;
        indices[row * params.k + place] = feature;
    }
    for (var place = found + lane; place < params.k; place += BLOCK) {
        values[row * params.k + place] = rest;
        indices[row * params.k + place] = 0u;
    }
}
