// edit_rows_f32: x[r] += c * directions[direction], or = 0, or = directions[..], for every record of r that applies at its column, in order.
//
// slots    x           f32 [rows, width]       updated; not touched where no record of a row applies
//          records     u32 [rows, slots, 8]    read; kind, feature, direction, amount (f32 as bits), first, end, offset, rows (of a feature: threshold)
//          directions  f32 [dirs, width]       read
//          positions   u32 [rows]              read
//          pre         f32 [rows, features]    read where a record that applies asks for a feature; left out with features 0
// params   rows u32 @0   width u32 @4   slots u32 @8   dirs u32 @12   features u32 @16   k u32 @20   pad @24      32 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   one row a workgroup, every 256th column an invocation
// shared   1024 bytes: counts
// cost     bytes at most 4 * rows * (2 * width + 8 * slots + 1 + features) + rows of directions that are touched
//          flops at most rows * slots * (2 * width + features)
// numerics f32; x + c * direction fused or not, as the device has it. A feature is active if fewer than k are larger or equal and
//          before it: a count, exact. Where c is 0 not a bit changes.

struct Params {
    rows: u32,
    width: u32,
    slots: u32,
    dirs: u32,
    features: u32,
    k: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read>       records: array<u32>;
@group(0) @binding(2) var<storage, read>       directions: array<f32>;
@group(0) @binding(3) var<storage, read>       positions: array<u32>;
@group(0) @binding(4) var<storage, read>       pre: array<f32>;
@group(0) @binding(5) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

const ABLATE: u32 = 1u;
const SCALE: u32 = 2u;
const SET: u32 = 3u;
const STEER: u32 = 4u;
const ZERO: u32 = 5u;
const REPLACE: u32 = 6u;
const PATCH: u32 = 7u;

var<workgroup> counts: array<u32, BLOCK>;

/// A feature that is above 0 and its threshold and among the k largest of its row, else 0.
fn activation(row: u32, feature: u32, threshold: f32, lane: u32) -> f32 {
    let first = row * params.features;
    let own = pre[first + feature];
    if !(own > max(threshold, 0.0)) {
        return 0.0;
    }
    if params.k == 0u || params.k >= params.features {
        return own;
    }
    var before = 0u;
    for (var i = lane; i < params.features; i += BLOCK) {
        let other = pre[first + i];
        before += select(0u, 1u, other > own || (other == own && i < feature));
    }
    counts[lane] = before;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            counts[lane] += counts[lane + half];
        }
    }
    return select(0.0, own, workgroupUniformLoad(&counts[0]) < params.k);
}

@compute @workgroup_size(BLOCK)
fn edit_rows_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let position = positions[row];
    for (var slot = 0u; slot < params.slots; slot += 1u) {
        let at = 8u * (row * params.slots + slot);
        let kind = records[at];
        let column = position + records[at + 6u];
        if kind == 0u || kind > PATCH || column < records[at + 4u] || column >= records[at + 5u] {
            continue;
        }
        if kind == ZERO {
            for (var c = lane; c < params.width; c += BLOCK) {
                x[row * params.width + c] = 0.0;
            }
            continue;
        }
        var direction = records[at + 2u];
        if kind == PATCH {
            // past the table where the sum wraps round, and where there is no such row
            if column >= records[at + 7u] || direction + column < direction {
                continue;
            }
            direction += column;
        }
        if direction >= params.dirs {
            continue;
        }
        let from_row = direction * params.width;
        if kind >= REPLACE {
            for (var c = lane; c < params.width; c += BLOCK) {
                x[row * params.width + c] = directions[from_row + c];
            }
            continue;
        }
        let amount = bitcast<f32>(records[at + 3u]);
        var change = amount;
        if kind != STEER {
            let feature = records[at + 1u];
            if feature >= params.features {
                continue;
            }
            let f = activation(row, feature, bitcast<f32>(records[at + 7u]), lane);
            if kind == ABLATE {
                change = -f;
            } else if kind == SCALE {
                change = (amount - 1.0) * f;
            } else {
                change = amount - f;
            }
        }
        if change == 0.0 {
            continue;
        }
        for (var c = lane; c < params.width; c += BLOCK) {
            let i = row * params.width + c;
            x[i] = fma(change, directions[from_row + c], x[i]);
        }
    }
}
