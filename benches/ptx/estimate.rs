//! What a launch would take at least, from its plan and from the counts of a shorter one.

use super::device::{COPY_RATE, F32_RATE, H200, HALF_RATE, ISSUE_RATE, TF32_RATE};
use super::job::{Result, count};
use auscult_kernels::{DType, Fill, Plan, Ptx};
use auscult_runtime::ptx_sim::Counts;
use std::collections::HashMap;
use std::ops::AddAssign;

/// Seconds that parts of the device are busy with launches, one after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Busy {
    /// Launches.
    pub launches: usize,
    /// Compulsory bytes.
    pub bytes: f64,
    /// Additions and multiplications of the plans.
    pub flops: f64,
    /// Warp instructions.
    pub instructions: f64,
    /// Seconds for the bytes.
    pub memory_s: f64,
    /// Seconds of the units that multiply: tensor cores, where instructions are theirs, else those of f32.
    pub math_s: f64,
    /// Seconds to issue all instructions.
    pub issue_s: f64,
    /// The sum over launches of the largest of the three.
    pub floor_s: f64,
}

impl AddAssign for Busy {
    fn add_assign(&mut self, other: Self) {
        self.launches += other.launches;
        self.bytes += other.bytes;
        self.flops += other.flops;
        self.instructions += other.instructions;
        self.memory_s += other.memory_s;
        self.math_s += other.math_s;
        self.issue_s += other.issue_s;
        self.floor_s += other.floor_s;
    }
}

/// Counts that were taken, by entry and shapes.
#[derive(Default)]
pub struct Counted(HashMap<String, Counts>);

impl Counted {
    /// What a launch keeps busy, if it does as much for each flop of its plan (of one without flops, for each byte) as the
    /// short one. Both run in the form that the device takes for the launch.
    ///
    /// # Errors
    /// No form; what the interpreter refused.
    pub fn busy(&mut self, real: &Plan, short: &Plan) -> Result<(&'static Ptx, Busy)> {
        let form = real.kernel.ptx_for(&real.params, &H200).ok_or(real.kernel.name)?;
        Ok((form, self.busy_in(form, real, short)?))
    }

    /// The same in this form.
    ///
    /// # Errors
    /// What the interpreter refused.
    pub fn busy_in(&mut self, form: &Ptx, real: &Plan, short: &Plan) -> Result<Busy> {
        self.busy_with(form, real, short, &fill(short))
    }

    /// The same, the short one with these values.
    ///
    /// # Errors
    /// What the interpreter refused.
    pub fn busy_with(
        &mut self,
        form: &Ptx,
        real: &Plan,
        short: &Plan,
        fill: &[(&'static str, Fill)],
    ) -> Result<Busy> {
        let key = format!("{} {:?} {short}", form.entry, short.params);
        let counts = match self.0.get(&key) {
            Some(counts) => *counts,
            None => {
                let counts = count("a part of a model", short, fill, form.entry)?;
                self.0.insert(key, counts);
                counts
            }
        };
        let scale = match short.cost.flops {
            0 => real.cost.bytes as f64 / short.cost.bytes as f64,
            flops => real.cost.flops as f64 / flops as f64,
        };
        let half = real.slots[0].as_ref().is_some_and(|desc| matches!(desc.dtype, DType::F16 | DType::BF16));
        let tensor = counts.tensor_flops as f64 * scale;
        let math_s = match (tensor > 0.0, half) {
            (true, true) => tensor / HALF_RATE,
            (true, false) => tensor / TF32_RATE,
            (false, _) => real.cost.flops as f64 / F32_RATE,
        };
        let memory_s = real.cost.bytes as f64 / COPY_RATE;
        let instructions = counts.instructions as f64 * scale;
        let issue_s = instructions / ISSUE_RATE;
        Ok(Busy {
            launches: 1,
            bytes: real.cost.bytes as f64,
            flops: real.cost.flops as f64,
            instructions,
            memory_s,
            math_s,
            issue_s,
            floor_s: memory_s.max(math_s).max(issue_s),
        })
    }
}

/// Whole numbers that index whatever a model's launches index.
fn fill(plan: &Plan) -> Vec<(&'static str, Fill)> {
    let slots = plan.kernel.slots.iter().zip(&plan.slots);
    let whole = slots.filter(|(_, desc)| desc.as_ref().is_some_and(|desc| desc.dtype == DType::U32));
    whole.map(|(slot, _)| (slot.name, Fill::Below(2048))).collect()
}
