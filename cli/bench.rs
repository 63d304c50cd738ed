//! `auscult bench`: kernels timed on the device at the registry's larger cases and at the shapes of published models, each
//! beside what the device was measured to reach in the same run.

use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_kernels::ops::attention::{Attention, Mask};
use auscult_kernels::ops::conv1d::{Activation as ConvActivation, Conv1d, PadMode};
use auscult_kernels::ops::layer_norm::LayerNorm;
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_kernels::ops::linear_half::LinearHalf;
use auscult_kernels::ops::rvq_encode::RvqEncode;
use auscult_kernels::{Case, DType, Plan, REGISTRY, ShapeError, TensorDesc, Tolerance};
use auscult_model::musicgen::Precision;
use auscult_runtime::selftest::{self, Ceiling, Measured, Rotation};
use auscult_runtime::{Backend, DeviceError, DeviceInfo};
use serde_json::json;

/// Cases of the registry cheaper than this measure launching, not the kernel.
const WORTH_TIMING: u64 = 4 << 20;

#[derive(clap::Args)]
pub struct Args {
    /// Only kernels and shapes whose name holds this
    #[arg(long, value_name = "FILTER")]
    kernel: Option<String>,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let backend = context.backend()?;
    let backend = &*backend;
    let info = backend.info();
    let mut cases: Vec<(Case, Checked)> = REGISTRY
        .iter()
        .flat_map(|kernel| (kernel.cases)())
        .filter(|case| case.plan.cost.bytes + case.plan.cost.flops >= WORTH_TIMING)
        .map(|case| (case, Checked::First))
        .collect();
    let named = named(context.precision(backend), info)?;
    cases.extend(named.into_iter().map(|case| (case, Checked::ByTheTests)));
    let wanted = args.kernel.as_deref().unwrap_or("");
    cases.retain(|(case, _)| case.plan.kernel.name.contains(wanted) || case.why.contains(wanted));
    if cases.is_empty() {
        return Err(Failure::usage(format!("`--kernel` is `{wanted}`, expected a part of a kernel's name")));
    }
    context.note(&format!("measuring what {} reaches", info.id));
    let ceiling = Ceiling::measure(backend)?;
    if !context.global.json {
        let (bytes, flops, half) = (ceiling.bytes / 1e9, ceiling.flops / 1e12, ceiling.half_flops / 1e12);
        println!(
            "copies {bytes:.1} GB/s, multiplies f32 matrices at {flops:.3} TFLOP/s, by f16 at {half:.3}"
        );
    }
    let mut lines = Vec::new();
    for (case, checked) in &cases {
        let measured = measure(backend, case, *checked, &ceiling)?;
        if !context.global.json {
            println!("{measured}  ({})", case.why);
        }
        lines.push(measured);
    }
    if context.global.json {
        let report = json!({
            "device": info.id,
            "name": info.name,
            "driver": info.driver,
            "version": env!("CARGO_PKG_VERSION"),
            "git_commit": auscult_analysis::record::GIT_COMMIT,
            "ceiling": {
                "copy_gb_per_s": ceiling.bytes / 1e9,
                "matrix_tflop_per_s": ceiling.flops / 1e12,
                "matrix_f16_tflop_per_s": ceiling.half_flops / 1e12,
            },
            "lines": lines,
        });
        println!("{report}");
    }
    Ok(())
}

/// Whether a case's answer is held to its reference before it is timed.
#[derive(Clone, Copy, PartialEq)]
enum Checked {
    /// It is.
    First,
    /// Its reference would take minutes; smaller shapes are in the registry.
    ByTheTests,
}

fn measure(backend: &dyn Backend, case: &Case, checked: Checked, ceiling: &Ceiling) -> Result<Measured> {
    if checked == Checked::First {
        selftest::check(backend, case).map_err(|message| {
            let (kernel, device) = (case.plan.kernel.name, &backend.info().id);
            Failure::failed(format!("{kernel} on {device}: {}: {message}", case.why))
        })?;
    }
    let seconds = Rotation::new(backend, case).and_then(|rotation| rotation.seconds(backend));
    let seconds = seconds.map_err(|error: DeviceError| {
        anyhow::Error::from(error).context(format!("{}: {}", case.plan.kernel.name, case.why))
    })?;
    Ok(Measured::new(backend, case, seconds, ceiling))
}

/// The products of a decoder layer: name, columns of x, columns of y.
const PRODUCTS: [(&str, usize, usize); 9] = [
    ("musicgen-small attention projection", 1024, 1024),
    ("musicgen-small fc1", 1024, 4096),
    ("musicgen-small fc2", 4096, 1024),
    ("musicgen-medium attention projection", 1536, 1536),
    ("musicgen-medium fc1", 1536, 6144),
    ("musicgen-medium fc2", 6144, 1536),
    ("musicgen-large attention projection", 2048, 2048),
    ("musicgen-large fc1", 2048, 8192),
    ("musicgen-large fc2", 8192, 2048),
];

/// Attention of a decoder: name, heads of 64, positions of 10 s and of 30 s.
const ATTENTIONS: [(&str, usize, usize); 4] = [
    ("musicgen-small attention over 10 s", 16, 501),
    ("musicgen-small attention over 30 s", 16, 1501),
    ("musicgen-large attention over 10 s", 32, 501),
    ("musicgen-large attention over 30 s", 32, 1501),
];

/// Convolutions of the 32 kHz codec's encoder over 10 s (HF `facebook/encodec_32khz`): name, steps in, channels in and
/// out, kernel, stride, padding on both sides.
const CONVOLUTIONS: [(&str, [usize; 5], [usize; 2]); 7] = [
    ("EnCodec first layer", [320_000, 1, 64, 7, 1], [3, 3]),
    ("EnCodec residual block, kernel 3", [320_000, 64, 32, 3, 1], [1, 1]),
    ("EnCodec residual block, kernel 1", [320_000, 32, 64, 1, 1], [0, 0]),
    ("EnCodec downsampling by 4", [320_000, 64, 128, 8, 4], [2, 2]),
    ("EnCodec downsampling by 5", [20_000, 256, 512, 10, 5], [3, 2]),
    ("EnCodec downsampling by 8", [4_000, 512, 1024, 16, 8], [4, 4]),
    ("EnCodec last layer", [500, 1024, 128, 7, 1], [3, 3]),
];

/// The shapes of published models, in the types that the decoder has on the device.
fn named(precision: Precision, device: &DeviceInfo) -> Result<Vec<Case>, ShapeError> {
    // accelerators take what a batch of captures gives them, a processor what keeps it busy
    let (rows, clips) = if device.accelerator { (16_384, 64) } else { (1024, 1) };
    let weight = match precision {
        Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::BF16 => DType::BF16,
    };
    let factors = if device.multiplies(weight) { weight } else { DType::F32 };
    let product = |activation, rows, cols, outs, residual: Option<&TensorDesc>| {
        let (x, weight) = (TensorDesc::new(factors, [rows, cols]), TensorDesc::new(weight, [outs, cols]));
        if factors == DType::F32 {
            return Linear { activation }.plan(&x, &weight, None, residual);
        }
        let out = if residual.is_some() { DType::F32 } else { factors };
        LinearHalf { activation, out }.plan(&x, &weight, None, residual)
    };
    let mut cases = Vec::new();
    let mut add = |why: &'static str, plan: Plan| {
        cases.push(Case { why, plan, fill: vec![], tolerance: Tolerance::EXACT });
    };
    for (why, cols, outs) in PRODUCTS {
        let activation = if why.ends_with("fc1") { Activation::Gelu } else { Activation::None };
        add(why, product(activation, rows, cols, outs, None)?);
    }
    let stream = TensorDesc::f32([rows, 1024]);
    let into_stream = product(Activation::None, rows, 4096, 1024, Some(&stream))?;
    add("musicgen-small fc2 into the residual stream", into_stream);
    for (why, heads, steps) in ATTENTIONS {
        let x = TensorDesc::new(factors, [clips, steps, 64 * heads]);
        add(why, Attention { heads, scale: 0.125, mask: Mask::Causal }.plan(&x, &x, &x)?);
    }
    for (why, [steps, ins, outs, kernel, stride], [pad_left, pad_right]) in CONVOLUTIONS {
        let input_activation = if ins > 1 { ConvActivation::Elu } else { ConvActivation::None };
        let op = Conv1d {
            stride,
            pad_left,
            pad_right,
            pad: PadMode::Reflect,
            input_activation,
            ..Conv1d::default()
        };
        let bias = TensorDesc::f32([outs]);
        let (x, weight) = (TensorDesc::f32([1, steps, ins]), TensorDesc::f32([outs, kernel, ins]));
        add(why, op.plan(&x, &weight, Some(&bias), None)?);
    }
    let frames = TensorDesc::f32([500 * clips, 128]);
    add("EnCodec quantiser", RvqEncode.plan(&frames, &TensorDesc::f32([4, 2048, 128]))?);
    let row = TensorDesc::f32([1024]);
    add("musicgen-small layer norm", LayerNorm { eps: 1e-5, out: factors }.plan(&stream, &row, &row)?);
    Ok(cases)
}
