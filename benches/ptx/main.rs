//! What every PTX form does at shapes of MusicGen-small and its codec, without a device: `cargo bench --bench ptx -- [FILTER]`.
//!
//! Nothing is timed. The counts are those of the interpreter `PtxSim`, a device of 132 multiprocessors; registers, shared
//! memory and the occupancy that follows from them are those of `ptxas` for `sm_90a`, left out where there is no `ptxas`.
//! Shapes are short, for an interpreter's sake; the floors behind them are of 64 clips of ten seconds. `FILTER` keeps
//! the forms whose entry or shape contains it. Behind them stand the jobs that are to be measured beside torch, at their
//! full sizes: floors by bandwidth, by arithmetic and by issue; `goals` as `FILTER` prints those alone, `encoder` those of an autoencoder.

#[path = "../../tests/common/ptxas.rs"]
mod assembler;
mod codec;
mod device;
mod estimate;
mod generation;
mod goals;
mod job;
mod shapes;
mod training;
mod transformer;
mod whole;

use assembler::Assembler;
use auscult_kernels::Ptx;
use device::{COPY_RATE, DEVICE, F32_RATE, H200, HALF_RATE, ISSUE_RATE, TF32_RATE};
use estimate::Counted;
use job::{CLIPS, Job, LEGEND, Result, count, print_floor, print_form};
use std::path::Path;

/// The filter that keeps no form, but what is to be measured.
const GOALS: &str = "goals";

/// The filter that keeps of these only an autoencoder's encoder.
const ENCODER: &str = "encoder";

/// What is to be measured beside torch.
fn goals(only_encoder: bool) -> Result<()> {
    println!(
        "\nwhat is to be measured beside torch. us bytes: at {:.1} TB/s; us math: of matrix instructions at {:.0} TFLOP/s in f16 and bf16 and\n\
         {:.0} in tf32 (three for each product of f32), of others at {:.0}; us issue: at {:.0} G warp instructions a second; us floor: sums of\n\
         the largest of the three of each launch, as if nothing else overlapped and nothing waited",
        COPY_RATE / 1e12,
        HALF_RATE / 1e12,
        TF32_RATE / 1e12,
        F32_RATE / 1e12,
        ISSUE_RATE / 1e9
    );
    let mut counted = Counted::default();
    if only_encoder {
        return goals::encoder(&mut counted);
    }
    goals::products(&mut counted)?;
    goals::attention(&mut counted)?;
    goals::encoder(&mut counted)?;
    let below = Path::new(env!("CARGO_TARGET_TMPDIR"));
    whole::forward(&mut counted, below)?;
    whole::encode(&mut counted, below)?;
    goals::wgsl()
}

fn main() -> Result<()> {
    // cargo passes an argument of its own
    let filter = std::env::args().skip(1).find(|arg| arg != "--bench").unwrap_or_default();
    if filter == GOALS || filter == ENCODER {
        return goals(filter == ENCODER);
    }
    let assembler = Assembler::find();
    match &assembler {
        Ok(assembler) => println!("ptxas {}, for {DEVICE}", assembler.version()?),
        Err(why) => println!("figures of ptxas are left out: {why}"),
    }
    println!("interpreter: compute capability 9.0, {} multiprocessors\n\n{LEGEND}", H200.multiprocessors);
    println!(
        "{:<30} {:<41} {:>7} {:>7} {:>8} {:>5} {:>4} {:>7} {:>5} {:>8} {:>7} {:>6} {:>6} {:>8} {:>8} {:>6} {:>8} {:>7} {:>6} {:>7} {:>5}",
        "entry",
        "shape",
        "kB",
        "Mflop",
        "kinstr",
        "lanes",
        "alu",
        "fl/in",
        "tens",
        "loaded",
        "stored",
        "moved",
        "sect",
        "sh.load",
        "sh.store",
        "B/fl",
        "confl",
        "barr",
        "regs",
        "shared",
        "warps"
    );
    let jobs = [
        transformer::transformer()?,
        generation::generation()?,
        codec::codec()?,
        training::autoencoders()?,
        training::training()?,
    ];
    let jobs: Vec<Job> = jobs.into_iter().flatten().collect();
    let keeps = |job: &Job, ptx: &Ptx| ptx.entry.contains(&filter) || job.what.contains(&filter);
    for job in &jobs {
        let takes = |ptx: &&Ptx| (ptx.takes)(&job.short.params) && keeps(job, ptx);
        for ptx in job.short.kernel.ptx.iter().filter(takes) {
            let counts = count(job.what, &job.short, &job.fill, ptx.entry)?;
            let usage = match &assembler {
                Ok(assembler) => Some(assembler.assemble(ptx.entry, ptx.source, DEVICE)?),
                Err(_) => None,
            };
            print_form(job, ptx, &counts, usage);
        }
    }
    println!(
        "\nfloors of {CLIPS} clips of ten seconds, if an H200 copies {:.1} TB/s and reaches {:.0} TFLOP/s on f16 and bf16, {:.0} on f32 (FFMA;\n\
         forms in three pieces of tf32 run on tensor cores and may pass below it): us for bytes, for flops, the larger\n",
        COPY_RATE / 1e12,
        HALF_RATE / 1e12,
        F32_RATE / 1e12
    );
    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>9} {:>9}  shapes",
        "kernel", "MB", "Gflop", "us bytes", "us flops", "us floor"
    );
    for job in jobs.iter().filter(|job| job.real.kernel.ptx.iter().any(|ptx| keeps(job, ptx))) {
        print_floor(job);
    }
    if filter.is_empty() { goals(false) } else { Ok(()) }
}
