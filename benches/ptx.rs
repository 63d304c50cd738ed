//! What every PTX form does at shapes of MusicGen-small and its codec, without a device: `cargo bench --bench ptx -- [FILTER]`.
//!
//! Nothing is timed. The counts are those of the interpreter `PtxSim`, a device of 132 multiprocessors; registers, shared
//! memory and the occupancy that follows from them are those of `ptxas` for `sm_90a`, left out where there is no `ptxas`.
//! Shapes are short, for an interpreter's sake; the floors behind them are of 64 clips of ten seconds. `FILTER` keeps
//! the forms whose entry or shape contains it.

#[path = "../tests/common/ptxas.rs"]
mod assembler;

use assembler::{Assembler, Usage};
use auscult_kernels::ops::{
    adam::{Adam, AdamStep, RATES},
    add::Add,
    attention,
    attention_cache::AttentionCache,
    attention_merge::AttentionMerge,
    cache_write::CacheWrite,
    capture::Capture,
    capture_step::CaptureStep,
    conv_transpose1d::ConvTranspose1d,
    conv1d,
    conv1d::Conv1d,
    delay_apply::{DelayApply, Steps},
    delay_revert::DelayRevert,
    edit_rows::EditRows,
    embed_sum::EmbedSum,
    fill::Fill as FillOp,
    layer_norm::LayerNorm,
    linear,
    linear::Activation,
    linear_half::LinearHalf,
    linear_half_capture::LinearHalfCapture,
    linear_rows::LinearRows,
    lstm::Lstm,
    rms_norm::RmsNorm,
    rvq_decode::RvqDecode,
    rvq_encode::RvqEncode,
    sae_adam_rows::{Length, SaeAdamRows},
    sae_clip::{SCHEDULE, SaeClip},
    sae_dead_bias::SaeDeadBias,
    sae_decode::SaeDecode,
    sae_encode::SaeEncode,
    sae_feature_grad::SaeFeatureGrad,
    sae_feature_sums::{HISTORY, SUMS, SaeFeatureSums},
    sae_group::SaeGroup,
    sample::{Guidance, Sample},
    scale::Scale,
    sum_rows::SumRows,
};
use auscult_kernels::{Case, DType, Fill, Plan, Ptx, PtxDevice, ShapeError, TensorDesc, Tolerance};
use auscult_runtime::ptx_sim::Counts;
use auscult_runtime::{PtxSim, selftest};

/// The device that is simulated and that occupancy is worked out for.
const H200: PtxDevice = PtxDevice { capability: (9, 0), multiprocessors: 132, shared_per_block: 227 << 10 };
/// Its architecture, as `ptxas` calls it.
const DEVICE: &str = "sm_90a";
/// What it is taken to do: bytes copied in a second, additions and multiplications by tensor cores in f16 and by FFMA in f32.
const COPY_RATE: f64 = 4.3e12;
const HALF_RATE: f64 = 788e12;
const F32_RATE: f64 = 67e12;
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

/// Positions that a clip of ten seconds has, and its samples.
const POSITIONS: usize = 501;
const CLIPS: usize = 64;
const SAMPLES: usize = 320_000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A launch, at a size to count at and at the size to know the floor of.
struct Job {
    what: &'static str,
    short: Plan,
    real: Plan,
    fill: Vec<(&'static str, Fill)>,
}

/// Plans a launch at two sizes.
fn job<S>(
    what: &'static str,
    [short, real]: [S; 2],
    plan: impl Fn(S) -> std::result::Result<Plan, ShapeError>,
) -> Result<Job> {
    Ok(Job { what, short: plan(short)?, real: plan(real)?, fill: vec![] })
}

impl Job {
    fn filled(self, fill: Vec<(&'static str, Fill)>) -> Self {
        Self { fill, ..self }
    }
}

/// Tokens of a text, padded.
const TOKENS: usize = 32;

/// Rows of a product: few, and the positions of all clips.
const ROWS: [usize; 2] = [512, CLIPS * POSITIONS];

fn transformer() -> Result<Vec<Job>> {
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
    jobs.push(
        job("8 x 501 positions, 4 x [2049, 1024]", [8, CLIPS], |batch| {
            EmbedSum { steps: POSITIONS, entries: 2049, first_codebook: 0 }.plan(
                &TensorDesc::u32([batch * POSITIONS, 4]),
                &TensorDesc::f32([4 * 2049, 1024]),
                None,
                Some(&TensorDesc::f32([2048, 1024])),
                None,
            )
        })?
        .filled(vec![("ids", Fill::Below(2049))]),
    );
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let plan = |rows| Capture { dtype }.plan(&TensorDesc::f32([rows, 1024]), None);
        jobs.push(job("[512, 1024], every row", ROWS, plan)?);
    }
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

/// Rows of a step: one take and its other half, and 64 takes with theirs.
const STEP_ROWS: [usize; 2] = [2, 128];

/// Keys of a row: a prompt's beginning, and those that a window of 30 s ends with. Pages hold 16, chunks 256.
const KEYS: [usize; 2] = [512, 1504];
const PAGE: usize = 16;
const CHUNK: usize = 256;

/// One column of takes that play.
fn generation() -> Result<Vec<Job>> {
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

/// Steps of all clips at one step for every `hop` samples, behind few steps of one.
fn steps(few: usize, hop: usize) -> [[usize; 2]; 2] {
    [[1, few], [CLIPS, SAMPLES / hop]]
}

fn codec() -> Result<Vec<Job>> {
    let conv = |ins: usize, outs: usize, kernel: usize, stride: usize, residual: bool| {
        move |[batch, steps]: [usize; 2]| {
            let pad = kernel - stride;
            let op = Conv1d {
                stride,
                dilation: 1,
                pad_left: pad - pad / 2,
                pad_right: pad / 2,
                pad: conv1d::PadMode::Reflect,
                input_activation: conv1d::Activation::Elu,
                output_activation: conv1d::Activation::None,
            };
            op.plan(
                &TensorDesc::f32([batch, steps, ins]),
                &TensorDesc::f32([outs, kernel, ins]),
                Some(&TensorDesc::f32([outs])),
                residual.then(|| TensorDesc::f32([batch, steps, outs])).as_ref(),
            )
        }
    };
    let transposed = |ins: usize, outs: usize, stride: usize| {
        move |[batch, steps]: [usize; 2]| {
            let op = ConvTranspose1d {
                stride,
                kernel: 2 * stride,
                trim_left: stride - stride / 2,
                trim_right: stride / 2,
                input_activation: conv1d::Activation::Elu,
                output_activation: conv1d::Activation::None,
            };
            let (x, bias) = (TensorDesc::f32([batch, steps, ins]), TensorDesc::f32([outs]));
            op.plan(&x, &TensorDesc::f32([stride * outs, 2, ins]), Some(&bias))
        }
    };
    let recurrent = |hidden: usize| {
        move |[batch, steps]: [usize; 2]| {
            let (gates, y) = ([batch, steps, 4 * hidden], TensorDesc::f32([batch, steps, hidden]));
            Lstm.plan(&TensorDesc::f32(gates), &TensorDesc::f32([4 * hidden, hidden]), Some(&y))
        }
    };
    let frames = [256, CLIPS * 500];
    Ok(vec![
        job("[1, 2048, 1 -> 64], kernel 7", steps(2048, 1), conv(1, 64, 7, 1, false))?,
        job("[1, 2048, 64 -> 32], kernel 3", steps(2048, 1), conv(64, 32, 3, 1, false))?,
        job("[1, 2048, 32 -> 64], kernel 1 + residual", steps(2048, 1), conv(32, 64, 1, 1, true))?,
        job("[1, 4096, 64 -> 128], kernel 8, stride 4", steps(4096, 1), conv(64, 128, 8, 4, false))?,
        job("[1, 640, 256 -> 512], kernel 10, stride 5", steps(640, 16), conv(256, 512, 10, 5, false))?,
        job("[1, 2048, 64 -> 1], kernel 7", steps(2048, 1), conv(64, 1, 7, 1, false))?,
        job("[1, 127, 512 -> 256], stride 5", steps(127, 80), transposed(512, 256, 5))?,
        job("[1, 1024, 128 -> 64], stride 4", steps(1024, 4), transposed(128, 64, 4))?,
        job("[64, 3, 1024]", [[CLIPS, 3], [CLIPS, 500]], recurrent(1024))?,
        job("[64, 8, 64], no codec's", [[CLIPS, 8], [CLIPS, 500]], recurrent(64))?,
        job("256 rows, 4 x [2048, 128]", frames, |rows| {
            RvqEncode.plan(&TensorDesc::f32([rows, 128]), &TensorDesc::f32([4, 2048, 128]))
        })?,
        job("256 rows, 4 x [2048, 128]", frames, |rows| {
            RvqDecode.plan(&TensorDesc::u32([rows, 4]), &TensorDesc::f32([4, 2048, 128]))
        })?
        .filled(vec![("codes", Fill::Below(2048))]),
    ])
}

/// Rows of a batch that an autoencoder is trained on, few and many; its features, and those that are active in a row.
const BATCH: [usize; 2] = [64, 4096];
const FEATURES: usize = 32_768;
const ACTIVE: usize = 100;

/// Active features of the short batch, and the same turned round: where a feature's entries begin, and (entry, row) of all.
fn active() -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let places = 0..BATCH[0] * ACTIVE;
    // a prime, and so coprime to the number of features: those of a row differ
    let feature = |at: usize| (at / ACTIVE * 7919 + at % ACTIVE * 0x9e37_79b1) % FEATURES;
    let mut order: Vec<usize> = places.clone().collect();
    order.sort_by_key(|&at| (feature(at), at));
    let starts = (0..=FEATURES).map(|f| order.partition_point(|&at| feature(at) < f) as u32).collect();
    let pair = |at: usize| [at as u32, (at / ACTIVE) as u32];
    (places.map(|at| feature(at) as u32).collect(), starts, order.into_iter().flat_map(pair).collect())
}

/// One step of the training of an autoencoder of MusicGen-small, but for encoder and decoder.
fn training() -> Result<Vec<Job>> {
    let (indices, starts, order) = active();
    let adam = Adam { beta1: 0.0, beta2: 0.999, eps: 1e-8 };
    let places = |rows: usize| (TensorDesc::u32([rows, ACTIVE]), TensorDesc::f32([rows, ACTIVE]));
    let rows_of = |rows: usize| TensorDesc::f32([rows, 1024]);
    let pairs = |rows: usize| TensorDesc::u32([rows * ACTIVE, 2]);
    let (bounds, history) = (TensorDesc::u32([FEATURES + 1]), TensorDesc::u32([FEATURES, HISTORY]));
    let (table, sums) = (TensorDesc::f32([FEATURES, 1024]), TensorDesc::f32([FEATURES, SUMS]));
    let (bias, rates) = (TensorDesc::f32([FEATURES]), TensorDesc::f32([RATES]));
    let positive = |name| (name, Fill::Between(0.125, 1.0));
    let turned = || vec![("starts", Fill::Words(starts.clone())), ("order", Fill::Words(order.clone()))];
    let with = |fill: Vec<_>| [turned(), fill].concat();
    Ok(vec![
        job("64 rows, 100 of 32,768 x 1024", BATCH, |rows| {
            let (indices, values) = places(rows);
            SaeFeatureGrad.plan(&indices, &values, &table, &rows_of(rows), &TensorDesc::f32([1]))
        })?
        .filled(vec![("indices", Fill::Words(indices.clone())), positive("values")]),
        job("64 rows, 100 of 32,768", BATCH, |rows| {
            let (indices, values) = places(rows);
            SaeGroup { features: FEATURES, rows, k: ACTIVE, aux_k: 0 }.plan(&indices, &values)
        })?
        .filled(vec![("indices", Fill::Words(indices.clone())), positive("values")]),
        job("64 rows, 100 of 32,768 x 1024", BATCH, |rows| {
            let (values, x) = (places(rows).1, rows_of(rows));
            SaeFeatureSums.plan([&bounds, &pairs(rows), &values, &values, &x, &x, &history])
        })?
        .filled(with(vec![("history", Fill::Below(1000))])),
        job("32,768 features, 1024 columns", BATCH, |rows| {
            SaeClip { scale: 2.0 / rows as f32, max_norm: 1.0 }.plan(
                &sums,
                &TensorDesc::f32([1024, 1]),
                &TensorDesc::f32([SCHEDULE]),
            )
        })?
        .filled(vec![positive("sums")]),
        job("64 rows, 100 of 32,768 x 1024", BATCH, |rows| {
            let (coefs, moments) = (places(rows).1, TensorDesc::f32([FEATURES, 1, 1024]));
            SaeAdamRows { adam, length: Length::Unit }.plan([
                &table,
                &moments,
                &bounds,
                &pairs(rows),
                &coefs,
                &rows_of(rows),
                &sums,
                &rates,
            ])
        })?
        .filled(with(vec![
            positive("moments"),
            ("sums", Fill::Between(1.0, 900.0)),
            positive("rates"),
        ])),
        job("32,768 values", BATCH, |_| {
            let moments = TensorDesc::f32([1, FEATURES]);
            AdamStep { adam, column: 1 }.plan(&bias, &moments, &sums, &rates)
        })?
        .filled(vec![positive("moments"), positive("rates")]),
        job("[64, 1024]", BATCH, |rows| SumRows { factor: -1.0 }.plan(&rows_of(rows)))?,
        job("32,768 features", BATCH, |_| SaeDeadBias { after: 39 }.plan(&bias, &history))?
            .filled(vec![("history", Fill::Below(40))]),
    ])
}

/// Of the rows of `CLIPS` clips, and of one block of rows.
fn autoencoders() -> Result<Vec<Job>> {
    Ok(vec![
        job(
            "[128, 256] x [2048, 256], 32 best",
            [(128, 256, 2048, 32), (65_536, 1024, 32_768, 100)],
            |sizes| {
                let (rows, width, features, k) = sizes;
                let weight = TensorDesc::f32([features, width]);
                SaeEncode { k }.plan(&TensorDesc::f32([rows, width]), &weight, &TensorDesc::f32([features]))
            },
        )?,
        job("128 rows, 100 of [4096, 1024]", [(128, 4096), (65_536, 32_768)], |(rows, features)| {
            SaeDecode.plan(
                &TensorDesc::u32([rows, 100]),
                &TensorDesc::f32([rows, 100]),
                &TensorDesc::f32([features, 1024]),
                &TensorDesc::f32([1024]),
                None,
            )
        })?
        .filled(vec![("indices", Fill::Below(4096))]),
    ])
}

/// Warps of a multiprocessor that run at once, and what keeps them from being more.
fn occupancy(threads: u32, registers: u32, shared: u32) -> (u32, &'static str) {
    let warps = threads.div_ceil(32);
    let lot = (registers * 32).next_multiple_of(REGISTER_LOT);
    let by_registers = REGISTERS / QUARTERS / lot * QUARTERS / warps;
    let by_shared = SHARED / (shared + SHARED_RESERVED).next_multiple_of(SHARED_LOT);
    let limits =
        [(WARPS / warps, "warps"), (BLOCKS, "blocks"), (by_registers, "registers"), (by_shared, "shared")];
    let (blocks, why) = limits.into_iter().min_by_key(|limit| limit.0).expect("four limits");
    (blocks * warps, why)
}

fn per(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

fn print_form(job: &Job, ptx: &Ptx, counts: &Counts, usage: Option<Usage>) {
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

fn print_floor(job: &Job) {
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

const LEGEND: &str = "\
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

fn main() -> Result<()> {
    // cargo passes an argument of its own
    let filter = std::env::args().skip(1).find(|arg| arg != "--bench").unwrap_or_default();
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
    let jobs = [transformer()?, generation()?, codec()?, autoencoders()?, training()?];
    let jobs: Vec<Job> = jobs.into_iter().flatten().collect();
    let keeps = |job: &Job, ptx: &Ptx| ptx.entry.contains(&filter) || job.what.contains(&filter);
    for job in &jobs {
        let takes = |ptx: &&Ptx| (ptx.takes)(&job.short.params) && keeps(job, ptx);
        for ptx in job.short.kernel.ptx.iter().filter(takes) {
            let sim = PtxSim::with_device(H200)?.only(ptx.entry);
            let case = Case {
                why: job.what,
                plan: job.short.clone(),
                fill: job.fill.clone(),
                tolerance: Tolerance::EXACT,
            };
            selftest::run(&sim, &case, selftest::POISON)?;
            let usage = match &assembler {
                Ok(assembler) => Some(assembler.assemble(ptx.entry, ptx.source, DEVICE)?),
                Err(_) => None,
            };
            print_form(job, ptx, &sim.counts(), usage);
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
    Ok(())
}
