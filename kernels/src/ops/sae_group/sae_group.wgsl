// sae_group_u32: for every feature the entries in which it is active, by row: order[starts[f]] .. order[starts[f + 1]], each (entry, row).
//
// slots    indices  u32 [entries]        read; a feature is active once at most in a row of a table
//          values   f32 [entries]        read; active where above 0
//          starts   u32 [features + 1]   write
//          order    u32 [entries, 2]     write; 0xffffffff behind the last active entry
// params   features u32 @0   rows u32 @4   k u32 @8   aux_k u32 @12   second u32 @16   entries u32 @20   pad @24      32 bytes, uniform
// launch   grid ceil(features / 2048), at least 1, folded over x and y   workgroup (256, 1, 1)   2048 features a workgroup, which reads
//          every entry: twice, the second time row by row
// shared   9216 bytes: where each feature's next entry goes, counts
// cost     bytes 16 * entries + 4 * features   flops 0
// numerics whole numbers. A row's entries are placed at once, rows one after another, so that the order is that of the rows.

struct Params {
    features: u32,
    rows: u32,
    k: u32,
    aux_k: u32,
    second: u32,
    entries: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       indices: array<u32>;
@group(0) @binding(1) var<storage, read>       values: array<f32>;
@group(0) @binding(2) var<storage, read_write> starts: array<u32>;
@group(0) @binding(3) var<storage, read_write> order: array<vec2<u32>>;
@group(0) @binding(4) var<uniform>             params: Params;

const BLOCK: u32 = 256u;
const RANGE: u32 = 2048u;
const EACH: u32 = RANGE / BLOCK;
const NONE: u32 = 0xffffffffu;

var<workgroup> next: array<atomic<u32>, RANGE>;
var<workgroup> partial: array<u32, BLOCK>;

/// Counts the entries of a table, at `first`, that are active: in this range of features, one by one; below it, in all.
fn count(first: u32, entries: u32, low: u32, high: u32, lane: u32) -> u32 {
    var below = 0u;
    for (var i = lane; i < entries; i += BLOCK) {
        let feature = indices[first + i];
        if values[first + i] > 0.0 && feature < high {
            if feature < low {
                below += 1u;
            } else {
                atomicAdd(&next[feature - low], 1u);
            }
        }
    }
    return below;
}

/// Places the entries of a table, row by row.
fn place(first: u32, k: u32, first_row: u32, low: u32, high: u32, lane: u32) {
    for (var r = 0u; r < params.rows; r++) {
        for (var j = lane; j < k; j += BLOCK) {
            let entry = first + r * k + j;
            let feature = indices[entry];
            if values[entry] > 0.0 && feature >= low && feature < high {
                order[atomicAdd(&next[feature - low], 1u)] = vec2(entry, first_row + r);
            }
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(BLOCK)
fn sae_group_u32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let low = (group.y * groups.x + group.x) * RANGE;
    if low > params.features {
        return;
    }
    let high = min(low + RANGE, params.features);
    for (var i = lane; i < RANGE; i += BLOCK) {
        atomicStore(&next[i], 0u);
    }
    workgroupBarrier();
    var below = count(0u, params.rows * params.k, low, high, lane);
    below += count(params.second, params.rows * params.aux_k, low, high, lane);
    partial[lane] = below;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    let base = workgroupUniformLoad(&partial[0]);

    // an invocation owns neighbouring features; what those of the ones before it have, it starts from
    var own = 0u;
    for (var i = 0u; i < EACH; i++) {
        own += atomicLoad(&next[lane * EACH + i]);
    }
    partial[lane] = own;
    workgroupBarrier();
    for (var step = 1u; step < BLOCK; step *= 2u) {
        var before = 0u;
        if lane >= step {
            before = partial[lane - step];
        }
        workgroupBarrier();
        partial[lane] += before;
        workgroupBarrier();
    }
    let total = base + workgroupUniformLoad(&partial[BLOCK - 1u]);
    var at = base + partial[lane] - own;
    for (var i = 0u; i < EACH; i++) {
        let feature = lane * EACH + i;
        let here = atomicLoad(&next[feature]);
        if low + feature < high {
            starts[low + feature] = at;
        }
        atomicStore(&next[feature], at);
        at += here;
    }
    if high == params.features {
        if lane == 0u {
            starts[params.features] = total;
        }
        for (var i = total + lane; i < params.entries; i += BLOCK) {
            order[i] = vec2(NONE, NONE);
        }
    }
    workgroupBarrier();
    place(0u, params.k, 0u, low, high, lane);
    place(params.second, params.aux_k, params.rows, low, high, lane);
}
