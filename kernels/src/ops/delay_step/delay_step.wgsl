// delay_step_u32: codes[take, q, t] = tokens[take, q] from the prompt on, ids = the column t = positions[take] - q / channels, then positions + 1.
//
// slots    tokens     u32 [takes, codebooks]             read
//          limits     u32 [takes, 2]                     read; frames of the prompt, frames
//          positions  u32 [takes or 2 * takes]           updated; the column that was just fed
//          codes      u32 [takes, codebooks, capacity]   updated; at most one frame of every codebook
//          ids        u32 [takes or 2 * takes, codebooks]  write
// params   takes u32 @0   codebooks u32 @4   capacity u32 @8   special u32 @12   channels u32 @16   paired u32 @20   pad @24
//          32 bytes, uniform
// launch   grid takes, folded over x and y   workgroup (32, 1, 1)   one take a workgroup, every 32nd codebook an invocation
// shared   none
// cost     bytes 4 * takes * (2 * codebooks + 2) + 4 * rows * (codebooks + 2)   flops 0
// numerics exact.

struct Params {
    takes: u32,
    codebooks: u32,
    capacity: u32,
    special: u32,
    channels: u32,
    paired: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       tokens: array<u32>;
@group(0) @binding(1) var<storage, read>       limits: array<u32>;
@group(0) @binding(2) var<storage, read_write> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> codes: array<u32>;
@group(0) @binding(4) var<storage, read_write> ids: array<u32>;
@group(0) @binding(5) var<uniform>             params: Params;

const BLOCK: u32 = 32u;

@compute @workgroup_size(BLOCK)
fn delay_step_u32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let take = group.y * groups.x + group.x;
    if take >= params.takes {
        return;
    }
    let prompt = limits[2u * take];
    let frames = min(limits[2u * take + 1u], params.capacity);
    let column = positions[take];
    for (var q = lane; q < params.codebooks; q += BLOCK) {
        let cell = take * params.codebooks + q;
        let delay = q / params.channels;
        var id = params.special;
        if column >= delay && column - delay < frames {
            let at = cell * params.capacity + column - delay;
            if column - delay < prompt {
                id = codes[at];
            } else {
                id = tokens[cell];
                codes[at] = id;
            }
        }
        ids[cell] = id;
        if params.paired == 1u {
            ids[params.takes * params.codebooks + cell] = id;
        }
    }

    // every invocation has read the column
    storageBarrier();
    if lane == 0u && column < frames + (params.codebooks - 1u) / params.channels {
        positions[take] = column + 1u;
        if params.paired == 1u {
            positions[params.takes + take] += 1u;
        }
    }
}
