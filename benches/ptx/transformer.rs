//! The transformer over whole clips.

use super::job::{CLIPS, Job, POSITIONS, Result, job};
use auscult_kernels::ops::{
    add::Add,
    attention,
    attention_masked::AttentionMasked,
    capture::Capture,
    column_sums::ColumnSums,
    delay_apply::{DelayApply, Steps},
    delay_revert::DelayRevert,
    embed_sum::EmbedSum,
    fill::Fill as FillOp,
    gated_gelu::GatedGelu,
    layer_norm::LayerNorm,
    linear,
    linear::Activation,
    linear_half::LinearHalf,
    linear_half_capture::LinearHalfCapture,
    rms_norm::RmsNorm,
    scale::Scale,
};
use auscult_kernels::{DType, Fill, TensorDesc};

/// Tokens of a text, padded.
const TOKENS: usize = 32;

/// Rows of a product: few, and the positions of all clips.
const ROWS: [usize; 2] = [512, CLIPS * POSITIONS];

/// Every kernel of it, at the shapes of MusicGen-small.
pub fn transformer() -> Result<Vec<Job>> {
    let mut jobs = vec![];
    for half in [DType::F16, DType::BF16] {
        let wide = |activation, cols, outs| {
            move |rows| {
                let (x, weight) = (TensorDesc::new(half, [rows, cols]), TensorDesc::new(half, [outs, cols]));
                LinearHalf { activation, out: half }.plan(&x, &weight, None, None)
            }
        };
        let onto_residual = |cols, outs| {
            move |rows| {
                let (x, weight) = (TensorDesc::new(half, [rows, cols]), TensorDesc::new(half, [outs, cols]));
                let residual = TensorDesc::f32([rows, outs]);
                LinearHalf { activation: Activation::None, out: DType::F32 }.plan(
                    &x,
                    &weight,
                    None,
                    Some(&residual),
                )
            }
        };
        jobs.push(job("[512, 1024] x [1024, 1024]", ROWS, wide(Activation::None, 1024, 1024))?);
        jobs.push(job("[512, 1024] x [1024, 1024] + residual", ROWS, onto_residual(1024, 1024))?);
        jobs.push(job("[512, 1024] x [1024, 1024] + residual, kept", ROWS, |rows| {
            let (x, weight) = (TensorDesc::new(half, [rows, 1024]), TensorDesc::new(half, [1024, 1024]));
            let residual = TensorDesc::f32([rows, 1024]);
            LinearHalfCapture { activation: Activation::None }.plan(&x, &weight, None, Some(&residual))
        })?);
        if half == DType::F16 {
            jobs.push(job("[512, 1024] x [4096, 1024], GELU", ROWS, wide(Activation::Gelu, 1024, 4096))?);
            jobs.push(job("[512, 4096] x [1024, 4096] + residual", ROWS, onto_residual(4096, 1024))?);
        }
    }
    for weight in [DType::F32, DType::F16, DType::BF16] {
        jobs.push(job("[128, 1024] x [1024, 1024]", [128, ROWS[1]], |rows| {
            linear::Linear { activation: Activation::None }.plan(
                &TensorDesc::f32([rows, 1024]),
                &TensorDesc::new(weight, [1024, 1024]),
                None,
                None,
            )
        })?);
    }
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        jobs.push(job("[1, 501, 16 * 64], causal", [1, CLIPS], |batch| {
            let x = TensorDesc::new(dtype, [batch, POSITIONS, 16 * 64]);
            attention::Attention { heads: 16, scale: 0.125, mask: attention::Mask::Causal }.plan(&x, &x, &x)
        })?);
    }
    for out in [DType::F32, DType::F16, DType::BF16] {
        jobs.push(job("[512, 1024]", ROWS, |rows| {
            let row = TensorDesc::f32([1024]);
            LayerNorm { eps: 1e-5, out }.plan(&TensorDesc::f32([rows, 1024]), &row, &row)
        })?);
    }
    jobs.push(job("[512, 768]", [ROWS[0], CLIPS * TOKENS], |rows| {
        RmsNorm { eps: 1e-6 }.plan(&TensorDesc::f32([rows, 768]), &TensorDesc::f32([768]))
    })?);
    for table in [DType::F32, DType::F16, DType::BF16] {
        jobs.push(
            job("8 x 501 positions, 4 x [2049, 1024]", [8, CLIPS], |batch| {
                EmbedSum { steps: POSITIONS, entries: 2049, first_codebook: 0 }.plan(
                    &TensorDesc::u32([batch * POSITIONS, 4]),
                    &TensorDesc::new(table, [4 * 2049, 1024]),
                    None,
                    Some(&TensorDesc::f32([2048, 1024])),
                    None,
                )
            })?
            .filled(vec![("ids", Fill::Below(2049))]),
        );
    }
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let plan = |rows| Capture { dtype }.plan(&TensorDesc::f32([rows, 1024]), None);
        jobs.push(job("[512, 1024], every row", ROWS, plan)?);
    }
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        // cross-attention to a text
        jobs.push(
            job("[4, 501, 16 * 64] to 32 tokens", [4, CLIPS], |batch| {
                let q = TensorDesc::new(dtype, [batch, POSITIONS, 16 * 64]);
                let text = TensorDesc::new(dtype, [batch, TOKENS, 16 * 64]);
                let op = AttentionMasked { heads: 16, scale: 0.125 };
                op.plan(&q, &text, &text, &TensorDesc::u32([batch]), None)
            })?
            .filled(vec![("lengths", Fill::Cycle(&[16, 32, 9, 24]))]),
        );
    }
    jobs.push(
        job("[16, 32, 12 * 64], a bias", [16, CLIPS], |batch| {
            let x = TensorDesc::f32([batch, TOKENS, 12 * 64]);
            let bias = TensorDesc::f32([12, TOKENS, TOKENS]);
            let op = AttentionMasked { heads: 12, scale: 1.0 };
            op.plan(&x, &x, &x, &TensorDesc::u32([batch]), Some(&bias))
        })?
        .filled(vec![("lengths", Fill::Cycle(&[16, 32, 9, 24]))]),
    );
    jobs.push(job("[512, 2048]", [ROWS[0], CLIPS * TOKENS], |rows| {
        let x = TensorDesc::f32([rows, 2048]);
        GatedGelu.plan(&x, &x)
    })?);
    jobs.push(job("1 of 501 rows of 1024", [1, CLIPS], |groups| {
        ColumnSums { groups, skip: 0 }.plan(&TensorDesc::f32([groups * POSITIONS, 1024]), None)
    })?);
    jobs.push(job("[512, 1024]", ROWS, |rows| {
        let x = TensorDesc::f32([rows, 1024]);
        Add { alpha: 1.0 }.plan(&x, &x)
    })?);
    jobs.push(job("[512, 1024]", ROWS, |rows| Scale { factor: 0.5 }.plan(&TensorDesc::f32([rows, 1024])))?);
    jobs.push(job("[512, 1024]", ROWS, |rows| FillOp { shape: vec![rows, 1024], value: 0.5 }.plan())?);
    jobs.push(
        job("[64, 4, 500]", [CLIPS; 2], |batch| {
            let op = DelayApply { special: 2048, channels: 1, steps: Steps::Full };
            op.plan(&TensorDesc::u32([batch, 4, 500]))
        })?
        .filled(vec![("codes", Fill::Below(2048))]),
    );
    jobs.push(
        job("[64, 504, 4]", [CLIPS; 2], |batch| {
            let op = DelayRevert { special: 2048, channels: 1, frames: 500 };
            op.plan(&TensorDesc::u32([batch, 504, 4]))
        })?
        .filled(vec![("ids", Fill::Below(2048))]),
    );
    Ok(jobs)
}
