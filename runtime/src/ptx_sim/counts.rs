//! What a launch did, for reasoning about speed without hardware.

use std::ops::AddAssign;

/// Work of a launch. Bytes count every lane by itself, whatever a device would merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions that warps issued.
    pub instructions: u64,
    /// Instructions by lane.
    pub lane_instructions: u64,
    /// Lane instructions that are arithmetic, logic, conversions, moves.
    pub alu: u64,
    /// Bytes read from global memory.
    pub global_loaded: u64,
    /// Bytes written to global memory, atomics included.
    pub global_stored: u64,
    /// Sectors of 32 bytes that warps touched in global memory, each instruction by itself.
    pub global_sectors: u64,
    /// Bytes read from shared memory.
    pub shared_loaded: u64,
    /// Bytes written to shared memory, atomics and asynchronous copies included.
    pub shared_stored: u64,
    /// Turns that the banks of shared memory take beyond the first of each instruction.
    pub bank_conflicts: u64,
    /// Additions and multiplications of matrix instructions.
    pub tensor_flops: u64,
    /// Barriers passed, by warp.
    pub barriers: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.lane_instructions += other.lane_instructions;
        self.alu += other.alu;
        self.global_loaded += other.global_loaded;
        self.global_stored += other.global_stored;
        self.global_sectors += other.global_sectors;
        self.shared_loaded += other.shared_loaded;
        self.shared_stored += other.shared_stored;
        self.bank_conflicts += other.bank_conflicts;
        self.tensor_flops += other.tensor_flops;
        self.barriers += other.barriers;
    }
}
