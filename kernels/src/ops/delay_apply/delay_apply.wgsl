// delay_apply_u32: ids[b, s, q] = codes[b, q, s - 1 - q / channels], special where there is no such frame.
//
// slots    codes  u32 [batch, codebooks, frames]   read
//          ids    u32 [batch, steps, codebooks]    write
// params   batch u32 @0   codebooks u32 @4   frames u32 @8   steps u32 @12   special u32 @16   channels u32 @20   pad @24
//          32 bytes, uniform
// launch   grid ceil(batch * codebooks * steps / 256), folded over x and y   workgroup (256, 1, 1)
//          one element of the result per invocation
// shared   none
// cost     bytes 4 * batch * codebooks * (steps + frames)   flops 0
// numerics exact.

struct Params {
    batch: u32,
    codebooks: u32,
    frames: u32,
    steps: u32,
    special: u32,
    channels: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read>       codes: array<u32>;
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;
@group(0) @binding(2) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn delay_apply_u32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.batch * params.codebooks * params.steps {
        return;
    }
    let q = i % params.codebooks;
    let s = i / params.codebooks % params.steps;
    let b = i / params.codebooks / params.steps;
    // wraps round to a number past all frames where s is before the first
    let frame = s - 1u - q / params.channels;
    if frame < params.frames {
        ids[i] = codes[(b * params.codebooks + q) * params.frames + frame];
    } else {
        ids[i] = params.special;
    }
}
