// rvq_encode_f32: at every stage the entry nearest to the residual, the smaller of equals; then residual -= entry.
//
// slots    x          f32 [rows, dim]               read
//          codebooks  f32 [stages, entries, dim]    read
//          codes      u32 [rows, stages]            write
// params   rows u32 @0   dim u32 @4 (at most 2048)   stages u32 @8   entries u32 @12      16 bytes, uniform
// launch   grid rows, folded over x and y   workgroup (256, 1, 1)   one workgroup a row, one invocation every 256th entry
// shared   10240 bytes
// cost     bytes 4 * (rows * dim + stages * entries * dim + rows * stages)   flops 3 * rows * stages * entries * dim
// numerics f32; a distance sums dim squares of differences in order, fused: no cancellation. Two entries whose distances
//          differ by less than dim * 2^-24 of them may be taken for each other.

struct Params {
    rows: u32,
    dim: u32,
    stages: u32,
    entries: u32,
}

@group(0) @binding(0) var<storage, read>       x: array<f32>;
@group(0) @binding(1) var<storage, read>       codebooks: array<f32>;
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
@group(0) @binding(3) var<uniform>             params: Params;

const MOST_DIM: u32 = 2048u;
const BLOCK: u32 = 256u;

var<workgroup> residual: array<f32, MOST_DIM>;
var<workgroup> smallest: array<f32, BLOCK>;
var<workgroup> nearest: array<u32, BLOCK>;

@compute @workgroup_size(BLOCK)
fn rvq_encode_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    for (var d = lane; d < params.dim; d += BLOCK) {
        residual[d] = x[row * params.dim + d];
    }
    for (var s = 0u; s < params.stages; s++) {
        let book = s * params.entries * params.dim;
        workgroupBarrier();

        // an invocation without a finite distance offers entry 0 at the largest one
        var own_smallest = 3.4028234e38;
        var own_nearest = 0u;
        for (var e = lane; e < params.entries; e += BLOCK) {
            var distance = 0.0;
            for (var d = 0u; d < params.dim; d++) {
                let difference = residual[d] - codebooks[book + e * params.dim + d];
                distance = fma(difference, difference, distance);
            }
            if distance < own_smallest {
                own_smallest = distance;
                own_nearest = e;
            }
        }
        smallest[lane] = own_smallest;
        nearest[lane] = own_nearest;

        for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if lane < half {
                let other = smallest[lane + half];
                let other_nearest = nearest[lane + half];
                if other < smallest[lane] || (other == smallest[lane] && other_nearest < nearest[lane]) {
                    smallest[lane] = other;
                    nearest[lane] = other_nearest;
                }
            }
        }
        let code = workgroupUniformLoad(&nearest[0]);
        if lane == 0u {
            codes[row * params.stages + s] = code;
        }
        for (var d = lane; d < params.dim; d += BLOCK) {
            residual[d] -= codebooks[book + code * params.dim + d];
        }
    }
}
