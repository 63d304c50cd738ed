//! The device that is reckoned with.

use auscult_kernels::PtxDevice;

/// The device that is simulated and that occupancy is worked out for.
pub const H200: PtxDevice =
    PtxDevice { capability: (9, 0), multiprocessors: 132, shared_per_block: 227 << 10 };
/// Its architecture, as `ptxas` calls it.
pub const DEVICE: &str = "sm_90a";
/// What it is taken to do: bytes copied in a second, read and written, and additions and multiplications by tensor cores
/// in f16 and bf16, both measured on one; by tensor cores in tf32, half of that; by FFMA in f32.
pub const COPY_RATE: f64 = 4.3e12;
pub const HALF_RATE: f64 = 788e12;
pub const TF32_RATE: f64 = 394e12;
pub const F32_RATE: f64 = 60e12;
/// Instructions that it issues in a second: four schedulers a multiprocessor, at the 1.83 GHz that its 989 TFLOP/s in f16
/// stand for (NVIDIA H100 and H200 data sheets: 132 * 4096 a turn).
pub const ISSUE_RATE: f64 = 132.0 * 4.0 * 1.83e9;
/// A multiprocessor: registers, warps, blocks, bytes of shared memory, and those that it keeps for each block.
const REGISTERS: u32 = 65_536;
const WARPS: u32 = 64;
const BLOCKS: u32 = 32;
const SHARED: u32 = 228 << 10;
const SHARED_RESERVED: u32 = 1 << 10;
/// Registers are handed out to a warp in lots, each quarter of a multiprocessor from its own; shared memory in lots too.
const REGISTER_LOT: u32 = 256;
const QUARTERS: u32 = 4;
const SHARED_LOT: u32 = 128;

/// Warps of a multiprocessor that run at once, and what keeps them from being more.
pub fn occupancy(threads: u32, registers: u32, shared: u32) -> (u32, &'static str) {
    let warps = threads.div_ceil(32);
    let lot = (registers * 32).next_multiple_of(REGISTER_LOT);
    let by_registers = REGISTERS / QUARTERS / lot * QUARTERS / warps;
    let by_shared = SHARED / (shared + SHARED_RESERVED).next_multiple_of(SHARED_LOT);
    let limits =
        [(WARPS / warps, "warps"), (BLOCKS, "blocks"), (by_registers, "registers"), (by_shared, "shared")];
    let (blocks, why) = limits.into_iter().min_by_key(|limit| limit.0).expect("four limits");
    (blocks * warps, why)
}
