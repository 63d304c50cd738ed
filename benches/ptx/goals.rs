//! Matrix products and attention at the sizes that are to be measured beside torch: floors, issue time, and what WGSL moves.

use super::estimate::{Busy, Counted};
use super::job::{CLIPS, Result};
use super::training::found;
use auscult_kernels::ops::attention::{Attention, Mask};
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_kernels::ops::linear_half::LinearHalf;
use auscult_kernels::ops::sae_encode::SaeEncode;
use auscult_kernels::ops::sae_rescore::SaeRescore;
use auscult_kernels::ops::sae_screen::{SaeScreen, screened};
use auscult_kernels::{DType, Plan, ShapeError, TensorDesc, Wgsl};

/// Rows of the products, those of the launches that are counted, and those of a check.
const ROWS: usize = 16_384;
const FEW: usize = 128;
const CHECKED: usize = 1024;

/// A product of a layer: what it is, columns and outs for each column of the residual stream, and what follows.
const PRODUCTS: [(&str, usize, usize, Activation, bool); 4] = [
    ("q, k, v", 1, 1, Activation::None, false),
    ("out", 1, 1, Activation::None, true),
    ("fc1", 1, 4, Activation::Gelu, false),
    ("fc2", 4, 1, Activation::None, true),
];

fn product(
    half: DType,
    [rows, cols, outs]: [usize; 3],
    activation: Activation,
    residual: bool,
) -> std::result::Result<Plan, ShapeError> {
    let (x, weight) = (TensorDesc::new(half, [rows, cols]), TensorDesc::new(half, [outs, cols]));
    let residual = residual.then(|| TensorDesc::f32([rows, outs]));
    let out = if residual.is_some() { DType::F32 } else { half };
    LinearHalf { activation, out }.plan(&x, &weight, None, residual.as_ref())
}

/// Logits of all codebooks, in f32.
fn heads(half: DType, [rows, cols, outs]: [usize; 3]) -> std::result::Result<Plan, ShapeError> {
    let (x, weight) = (TensorDesc::new(half, [rows, cols]), TensorDesc::new(half, [outs, cols]));
    LinearHalf { activation: Activation::None, out: DType::F32 }.plan(&x, &weight, None, None)
}

/// Columns of the lines of a launch.
pub const COLUMNS: &str = "                                              MB     Gflop   Minstr  us bytes   us math  us issue  us floor";

/// A launch, or many.
pub fn line(what: &str, form: &str, busy: &Busy) {
    println!(
        "{what:<16} {form:<27}{:>8.1} {:>9.2} {:>8.2} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        busy.bytes / 1e6,
        busy.flops / 1e9,
        busy.instructions / 1e6,
        busy.memory_s * 1e6,
        busy.math_s * 1e6,
        busy.issue_s * 1e6,
        busy.floor_s * 1e6,
    );
}

/// Products of both models in half precision.
pub fn products(counted: &mut Counted) -> Result<()> {
    println!(
        "\nproducts of {ROWS} rows, f16 and bf16; instructions are those of {FEW} rows in f16, scaled by rows\n"
    );
    println!("{COLUMNS}");
    for (model, width) in [("small", 1024), ("large", 2048)] {
        for (what, cols, outs, activation, residual) in PRODUCTS {
            let plan = |rows| product(DType::F16, [rows, cols * width, outs * width], activation, residual);
            let (form, busy) = counted.busy(&plan(ROWS)?, &plan(FEW)?)?;
            line(&format!("{model} {what}"), form.entry, &busy);
        }
        let plan = |rows| heads(DType::F16, [rows, width, 4 * 2048]);
        let (form, busy) = counted.busy(&plan(ROWS)?, &plan(FEW)?)?;
        line(&format!("{model} heads"), form.entry, &busy);
    }
    let plan = |half, rows| product(half, [rows, 1024, 1024], Activation::None, false);
    for (half, rows) in [(DType::F16, CHECKED), (DType::BF16, FEW)] {
        let (form, busy) = counted.busy(&plan(half, ROWS)?, &plan(half, rows)?)?;
        line(&format!("q from {rows} rows"), form.entry, &busy);
    }
    Ok(())
}

/// Causal attention of `CLIPS` clips in half precision.
pub fn attention(counted: &mut Counted) -> Result<()> {
    println!(
        "\ncausal attention of {CLIPS} clips, head_dim 64; instructions are those of one head, scaled by heads\n"
    );
    println!("{COLUMNS}");
    let plan = |dtype, batch, steps, heads| {
        let x = TensorDesc::new(dtype, [batch, steps, heads * 64]);
        Attention { heads, scale: 0.125, mask: Mask::Causal }.plan(&x, &x, &x)
    };
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for steps in [501, 1501] {
            // the longer one in one type: forms of both halves are counted alike above
            if steps > 501 && dtype != DType::F16 {
                continue;
            }
            for heads in [16, 32] {
                let (form, busy) =
                    counted.busy(&plan(dtype, CLIPS, steps, heads)?, &plan(dtype, 1, steps, 1)?)?;
                line(&format!("S {steps}, {heads} heads"), form.entry, &busy);
            }
        }
    }
    Ok(())
}

/// The encoder of a published autoencoder: in bf16 the screen in every form, and its near ties in f32; and all of it in f32.
pub fn encoder(counted: &mut Counted) -> Result<()> {
    let (rows, width, features, k) = (65_536, 1024, 32_768, 100);
    println!(
        "\nthe {k} best of {features} features of {rows} rows of {width}, in bf16 with {} screened; instructions are those of {FEW} rows,\n\
         scaled by rows\n",
        screened(k, features)
    );
    println!("{COLUMNS}");
    let screen = |rows| {
        let [x, weight] = [[rows, width], [features, width]].map(|shape| TensorDesc::new(DType::BF16, shape));
        SaeScreen { k: screened(k, features) }.plan(&x, &weight, &TensorDesc::f32([features]))
    };
    let (real, few) = (screen(rows)?, screen(FEW)?);
    for form in real.kernel.ptx.iter().filter(|form| (form.takes)(&real.params)) {
        line("screen", form.entry, &counted.busy_in(form, &real, &few)?);
    }
    let rescore = |rows| {
        let [x, weight] = [[rows, width], [features, width]].map(TensorDesc::f32);
        let lists = [rows, screened(k, features)];
        let (candidates, scores) = (TensorDesc::u32(lists), TensorDesc::f32(lists));
        let [bias, errors] = [features, width + features].map(|n| TensorDesc::f32([n]));
        SaeRescore { k }.plan(&x, &weight, &bias, &errors, &candidates, &scores)
    };
    let (real, few) = (rescore(rows)?, rescore(FEW)?);
    for form in real.kernel.ptx {
        line("its near ties", form.entry, &counted.busy_with(form, &real, &few, &found(FEW, features))?);
    }
    let whole = |rows| {
        let [x, weight] = [[rows, width], [features, width]].map(TensorDesc::f32);
        SaeEncode { k }.plan(&x, &weight, &TensorDesc::f32([features]))
    };
    let (form, busy) = counted.busy(&whole(rows)?, &whole(FEW)?)?;
    line("in f32 at once", form.entry, &busy);
    Ok(())
}

/// The most of one size that the grid of one of 1 covers.
fn tile(form: &Wgsl, plan: impl Fn(usize) -> std::result::Result<Plan, ShapeError>) -> Result<usize> {
    let groups = |size| -> Result<u32> { Ok((form.grid)(&plan(size)?.params).iter().product()) };
    let one = groups(1)?;
    let mut size = 1;
    while size < 1024 && groups(size + 1)? == one {
        size += 1;
    }
    Ok(size)
}

/// The same products in WGSL, for which there is no interpreter that counts: what their tiles read.
pub fn wgsl() -> Result<()> {
    println!(
        "\nthe same products in WGSL, musicgen-small; no instruction counts exist. MB tiles: bytes that workgroups read and\n\
         write if no cache helps; flop/B: of a tile, from its sides\n"
    );
    println!(
        "                                       tile           MB     Gflop  MB tiles    flop/B  us bytes  us tiles"
    );
    type Planned = std::result::Result<Plan, ShapeError>;
    let half = |[rows, cols, outs]: [usize; 3]| -> Planned {
        product(DType::F16, [rows, cols, outs], Activation::None, false)
    };
    let full = |[rows, cols, outs]: [usize; 3]| -> Planned {
        let (x, weight) = (TensorDesc::f32([rows, cols]), TensorDesc::f32([outs, cols]));
        Linear { activation: Activation::None }.plan(&x, &weight, None, None)
    };
    type Plans<'p> = &'p dyn Fn([usize; 3]) -> Planned;
    let kinds: [(&str, usize, Plans<'_>); 2] = [("f16", 2, &half), ("f32", 4, &full)];
    for (dtype, size, plan) in kinds {
        for (what, cols, outs) in [("q, k, v, out", 1024, 1024), ("fc1", 1024, 4096), ("fc2", 4096, 1024)] {
            let real = plan([ROWS, cols, outs])?;
            for form in real.kernel.wgsl.iter().filter(|form| (form.takes)(&real.params)) {
                let high = tile(form, |rows| plan([rows, cols, outs]))?;
                let wide = tile(form, |outs| plan([ROWS, cols, outs]))?;
                let tiles = ROWS.div_ceil(high) * outs.div_ceil(wide);
                let bytes = (tiles * (high + wide) * cols * size + ROWS * outs * size) as f64;
                let each = (2 * high * wide) as f64 / ((high + wide) * size) as f64;
                println!(
                    "{dtype} {what:<12} {:<22} {:>9} {:>9.1} {:>9.2} {:>9.1} {each:>9.1} {:>9.1} {:>9.1}",
                    form.entry,
                    format!("{high} x {wide}"),
                    real.cost.bytes as f64 / 1e6,
                    real.cost.flops as f64 / 1e9,
                    bytes / 1e6,
                    real.cost.bytes as f64 / super::device::COPY_RATE * 1e6,
                    bytes / super::device::COPY_RATE * 1e6,
                );
            }
        }
    }
    Ok(())
}
