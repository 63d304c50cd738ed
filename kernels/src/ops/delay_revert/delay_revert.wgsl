// delay_revert_u32: codes[b, q, f] = ids[b, f + 1 + q / channels, q], special where there is no such position.
//
// slots    ids    u32 [batch, steps, codebooks]    read
//          codes  u32 [batch, codebooks, frames]   write
// params   batch u32 @0   codebooks u32 @4   frames u32 @8   steps u32 @12   special u32 @16   channels u32 @20   pad @24
//          32 bytes, uniform
// launch   grid ceil(batch * codebooks * frames / 256), folded over x and y   workgroup (256, 1, 1)
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

@group(0) @binding(0) var<storage, read>       ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> codes: array<u32>;
@group(0) @binding(2) var<uniform>             params: Params;

const BLOCK: u32 = 256u;

@compute @workgroup_size(BLOCK)
fn delay_revert_u32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * BLOCK + lane;
    if i >= params.batch * params.codebooks * params.frames {
        return;
    }
    let f = i % params.frames;
    let q = i / params.frames % params.codebooks;
    let b = i / params.frames / params.codebooks;
    let s = f + 1u + q / params.channels;
    if s < params.steps {
        codes[i] = ids[(b * params.steps + s) * params.codebooks + q];
    } else {
        codes[i] = params.special;
    }
}
