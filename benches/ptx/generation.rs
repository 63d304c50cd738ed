//! Music out.

use super::job::{Job, Result, job};
use auscult_kernels::ops::{
    attention_cache::AttentionCache,
    attention_merge::AttentionMerge,
    cache_write::CacheWrite,
    capture_step::CaptureStep,
    delay_step::DelayStep,
    edit_rows::EditRows,
    linear::Activation,
    linear_rows::LinearRows,
    sample::{Guidance, Sample},
};
use auscult_kernels::{DType, Fill, TensorDesc};

/// Rows of a step: one take and its other half, and 64 takes with theirs.
const STEP_ROWS: [usize; 2] = [2, 128];

/// Keys of a row: a prompt's beginning, and those that a window of 30 s ends with. Pages hold 16, chunks 256.
const KEYS: [usize; 2] = [512, 1504];
const PAGE: usize = 16;
const CHUNK: usize = 256;

/// One column of takes that play.
pub fn generation() -> Result<Vec<Job>> {
    let mut jobs = vec![];
    for dtype in [DType::F16, DType::F32] {
        let product = |activation, cols, outs, weights: usize, residual: bool| {
            move |rows| {
                let weight = TensorDesc::new(dtype, [outs, cols]);
                let more = [(weights > 1).then_some(&weight), (weights > 2).then_some(&weight)];
                let residual = residual.then(|| TensorDesc::f32([rows, outs]));
                let x = TensorDesc::f32([rows, cols]);
                LinearRows { activation }.plan(&x, &weight, more, None, residual.as_ref())
            }
        };
        jobs.push(job(
            "[2, 1024] x 3 x [1024, 1024]",
            STEP_ROWS,
            product(Activation::None, 1024, 1024, 3, false),
        )?);
        jobs.push(job(
            "[2, 1024] x [4096, 1024], GELU",
            STEP_ROWS,
            product(Activation::Gelu, 1024, 4096, 1, false),
        )?);
        jobs.push(job(
            "[2, 4096] x [1024, 4096] + residual",
            STEP_ROWS,
            product(Activation::None, 4096, 1024, 1, true),
        )?);
        let sizes = [(STEP_ROWS[0], KEYS[0]), (STEP_ROWS[1], KEYS[1])];
        let cache = |rows: usize, keys: usize| TensorDesc::new(dtype, [rows * keys / PAGE, PAGE, 1024]);
        let pages = |rows, keys| TensorDesc::u32([rows, keys / PAGE]);
        jobs.push(
            job("2 rows, 512 keys of 16 * 64, chunks of 256", sizes, |(rows, keys)| {
                AttentionCache { heads: 16, scale: 0.125, extra: 0, chunk: CHUNK }.plan(
                    &TensorDesc::f32([rows, 3 * 1024]),
                    &cache(rows, keys),
                    &cache(rows, keys),
                    &pages(rows, keys),
                    &TensorDesc::u32([rows]),
                )
            })?
            .filled(vec![
                ("pages", Fill::Stepping { stride: 1, below: 64 }),
                ("positions", Fill::Cycle(&[512])),
            ]),
        );
        jobs.push(
            job("2 rows", sizes, |(rows, keys)| {
                let kv = TensorDesc::f32([rows, 3 * 1024]);
                CacheWrite { steps: 1, k_first: 1024, v_first: 2048 }.plan(
                    &kv,
                    &kv,
                    &TensorDesc::u32([rows]),
                    &pages(rows, keys),
                    &cache(rows, keys),
                    &cache(rows, keys),
                )
            })?
            .filled(vec![
                ("pages", Fill::Stepping { stride: 1, below: 64 }),
                ("positions", Fill::Cycle(&[511])),
            ]),
        );
    }
    jobs.push(
        job("[2, 1024] into one of 4 columns", STEP_ROWS, |rows| {
            CaptureStep.plan(
                &TensorDesc::f32([rows, 1024]),
                &TensorDesc::u32([rows]),
                &TensorDesc::f32([rows, 4, 1024]),
            )
        })?
        .filled(vec![("positions", Fill::Cycle(&[100]))]),
    );
    jobs.push(job("[2, 16, 2, 66]", [(2, 2), (128, KEYS[1].div_ceil(CHUNK))], |(rows, chunks)| {
        AttentionMerge.plan(&TensorDesc::f32([rows, 16, chunks, 66]))
    })?);
    jobs.push(
        job("4 x 2048 scores, guided, the 250 best", [1, 64], |takes: usize| {
            Sample { codebooks: 4, guided: Guidance::Pairs }.plan(
                &TensorDesc::f32([2 * takes, 4 * 2048]),
                &TensorDesc::u32([takes, 12]),
                &TensorDesc::u32([2 * takes]),
            )
        })?
        .filled(vec![
            // seeds, row and offset, a draw; guidance 3 and temperature 1 in the bits of f32; the 250 best
            ("settings", Fill::Cycle(&[1, 2, 3, 0, 0, 0x4040_0000, 0x3f80_0000, 250, 0, 0, 0, 0])),
            ("positions", Fill::Cycle(&[100])),
        ]),
    );
    jobs.push(
        job("4 codebooks, 1500 frames", [1, 64], |takes: usize| {
            DelayStep { special: 2048, channels: 1, guided: Guidance::Pairs }.plan(
                &TensorDesc::u32([takes, 4]),
                &TensorDesc::u32([takes, 2]),
                &TensorDesc::u32([2 * takes]),
                &TensorDesc::u32([takes, 4, 1500]),
            )
        })?
        .filled(vec![
            ("tokens", Fill::Below(2048)),
            ("limits", Fill::Cycle(&[0, 1500])),
            ("positions", Fill::Cycle(&[100])),
            ("codes", Fill::Below(2048)),
        ]),
    );
    jobs.push(
        job("[2, 1024], 1 of 32,768 features ablated, k 100", STEP_ROWS, |rows| {
            EditRows { k: 100 }.plan(
                &TensorDesc::f32([rows, 1024]),
                &TensorDesc::u32([rows, 1, 8]),
                &TensorDesc::f32([1, 1024]),
                &TensorDesc::u32([rows]),
                Some(&TensorDesc::f32([rows, 32_768])),
            )
        })?
        .filled(vec![
            ("records", Fill::Cycle(&[1, 7, 0, 0, 0, u32::MAX, 0, 0])),
            ("positions", Fill::Cycle(&[100])),
        ]),
    );
    Ok(jobs)
}
