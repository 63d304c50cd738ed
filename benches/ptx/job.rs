//! Launches, what the interpreter counts of them, and the lines that tell it.

use super::assembler::Usage;
use super::device::{COPY_RATE, F32_RATE, H200, HALF_RATE, occupancy};
use auscult_kernels::{Case, DType, Fill, Plan, Ptx, ShapeError, Tolerance};
use auscult_runtime::ptx_sim::Counts;
use auscult_runtime::{PtxSim, selftest};

/// Positions of a clip of ten seconds.
pub const POSITIONS: usize = 501;
/// Clips of the floors.
pub const CLIPS: usize = 64;
/// Samples of a clip of ten seconds.
pub const SAMPLES: usize = 320_000;

/// Errors are printed, whatever they are.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A launch, at a size to count at and at the size to know the floor of.
pub struct Job {
    /// Of what.
    pub what: &'static str,
    /// To count at.
    pub short: Plan,
    /// To know the floor of.
    pub real: Plan,
    /// What is in the short one.
    pub fill: Vec<(&'static str, Fill)>,
}

/// Plans a launch at two sizes.
pub fn job<S>(
    what: &'static str,
    [short, real]: [S; 2],
    plan: impl Fn(S) -> std::result::Result<Plan, ShapeError>,
) -> Result<Job> {
    Ok(Job { what, short: plan(short)?, real: plan(real)?, fill: vec![] })
}

impl Job {
    /// With these values.
    pub fn filled(self, fill: Vec<(&'static str, Fill)>) -> Self {
        Self { fill, ..self }
    }
}

/// What one form of a kernel does in a launch.
///
/// # Errors
/// What the interpreter refused.
pub fn count(what: &'static str, plan: &Plan, fill: &[(&'static str, Fill)], entry: &str) -> Result<Counts> {
    let sim = PtxSim::with_device(H200)?.only(entry);
    let case = Case { why: what, plan: plan.clone(), fill: fill.to_vec(), tolerance: Tolerance::EXACT };
    selftest::run(&sim, &case, selftest::POISON)?;
    Ok(sim.counts())
}

fn per(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

/// A form of a launch, in a line.
pub fn print_form(job: &Job, ptx: &Ptx, counts: &Counts, usage: Option<Usage>) {
    let cost = job.short.cost;
    let moved = counts.global_loaded + counts.global_stored;
    let shared = counts.shared_loaded + counts.shared_stored;
    let flops = cost.flops.max(1);
    print!(
        "{:<30} {:<41} {:>7.0} {:>7.1} {:>8.1} {:>5.2} {:>4.2} {:>7.1} {:>5.2} {:>8.0} {:>7.0} {:>6.2} {:>6.2} {:>8.0} {:>8.0} {:>6.2} {:>8.1} {:>7.1} ",
        ptx.entry,
        job.what,
        cost.bytes as f64 / 1e3,
        cost.flops as f64 / 1e6,
        counts.instructions as f64 / 1e3,
        per(counts.lane_instructions, 32 * counts.instructions),
        per(counts.alu, counts.lane_instructions),
        per(cost.flops, counts.instructions),
        per(counts.tensor_flops, flops),
        counts.global_loaded as f64 / 1e3,
        counts.global_stored as f64 / 1e3,
        per(moved, cost.bytes),
        per(32 * counts.global_sectors, moved),
        counts.shared_loaded as f64 / 1e3,
        counts.shared_stored as f64 / 1e3,
        per(shared, flops),
        counts.bank_conflicts as f64 / 1e3,
        counts.barriers as f64 / 1e3,
    );
    let Some(usage) = usage else { return println!("      -       -     -") };
    let shared = usage.shared + (ptx.dynamic_shared)(&job.short.params);
    let (warps, why) = occupancy(ptx.block.iter().product(), usage.registers, shared);
    println!("{:>6} {:>7} {warps:>5} {why}", usage.registers, shared);
}

/// The floor of a launch, in a line.
pub fn print_floor(job: &Job) {
    let plan = &job.real;
    let cost = plan.cost;
    let half = plan.slots[0].as_ref().is_some_and(|desc| matches!(desc.dtype, DType::F16 | DType::BF16));
    let (bytes, flops) =
        (cost.bytes as f64 / COPY_RATE, cost.flops as f64 / if half { HALF_RATE } else { F32_RATE });
    let shapes: Vec<String> = plan.slots.iter().flatten().map(|desc| format!("{:?}", desc.shape)).collect();
    println!(
        "{:<24} {:>9.2} {:>9.2} {:>9.1} {:>9.1} {:>9.1}  {}",
        plan.kernel.name,
        cost.bytes as f64 / 1e6,
        cost.flops as f64 / 1e9,
        bytes * 1e6,
        flops * 1e6,
        bytes.max(flops) * 1e6,
        shapes.join(" "),
    );
}

/// Of the columns of [`print_form`].
pub const LEGEND: &str = "\
cost    compulsory kB and Mflop of the plan
kinstr  thousand instructions that warps issued; lanes: share of their lanes that ran; alu: share of those that computed,
        converted or moved between registers; fl/in: flops of the plan for each; tens: flops of matrix instructions over
        flops of the plan (3 for products in three pieces of tf32)
global  kB loaded and stored, by lane, whatever a cache would save; moved: their sum over compulsory bytes;
        sect: sectors of 32 bytes over bytes. A tensor copy counts a sector for every 16 bytes, so 2 is its best
shared  kB loaded and stored; B/fl: their sum for each flop of the plan; what wgmma reads by itself is not counted
confl   thousand turns of banks beyond the first of each instruction
barr    thousand barriers, by warp
ptxas   registers of a thread, bytes of shared memory of a block, warps of 64 that fit a multiprocessor, what limits them
";
