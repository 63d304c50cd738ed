//! The paged cache on every executor: a row's bits do not depend on its company, and what is written in place stays.

use crate::device::{ensure, equal};
use crate::{Executor, cuda, wgpu_or_skip};
use auscult_kernels::ops::{
    attention_cache::AttentionCache, attention_merge::AttentionMerge, cache_write::CacheWrite,
};
use auscult_kernels::{DType, Op, TensorDesc, noise};
use auscult_runtime::{
    Backend, Contents, CpuBackend, CudaBackend, DeviceError, Edits, GraphBuilder, Program, PtxSim, Tensor,
    WgpuBackend,
};
use half::{bf16, f16};
use libtest_mimic::{Completion, Failed, Trial};
use std::sync::Arc;

type Check = fn(Arc<dyn Backend>) -> Result<(), Failed>;

const CHECKS: &[(&str, Check)] = &[
    ("a row does not depend on other rows", company),
    ("a row does not depend on room that it does not use", unused_room),
    ("what is written stays from replay to replay", replays),
];

const NONE: u32 = u32::MAX;
const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Every check on every executor.
pub fn trials(
    cpu: &Executor<CpuBackend>,
    wgpu: &Executor<WgpuBackend>,
    cuda: &Executor<CudaBackend>,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(name, check) in CHECKS {
        let (cpu, wgpu) = (cpu.clone(), wgpu.clone());
        trials.push(Trial::test(format!("cache::{name}::cpu"), move || check(cpu?)));
        trials.push(Trial::test(format!("cache::{name}::ptx_sim"), move || check(Arc::new(PtxSim::new()?))));
        trials.push(cuda::trial(format!("cache::{name}::cuda"), cuda, move |cuda| check(cuda.clone())));
        trials.push(Trial::ignorable_test(format!("cache::{name}::wgpu"), move || {
            match wgpu_or_skip(&wgpu) {
                Ok(wgpu) => check(wgpu).map(|()| Completion::Completed),
                Err(skipped) => skipped,
            }
        }));
    }
    trials
}

fn filled(backend: &dyn Backend, desc: TensorDesc, bytes: &[u8]) -> Result<Tensor, Failed> {
    equal("bytes of a filling", bytes.len(), desc.bytes())?;
    let buffer = backend.alloc(Contents::Undefined(bytes.len()))?;
    backend.upload(&buffer.span(), bytes)?;
    Ok(Tensor { span: buffer.span(), desc })
}

fn narrowed(dtype: DType, values: impl Iterator<Item = f32>) -> Vec<u8> {
    match dtype {
        DType::F16 => bytemuck::cast_slice(&values.map(f16::from_f32).collect::<Vec<_>>()).to_vec(),
        DType::BF16 => bytemuck::cast_slice(&values.map(bf16::from_f32).collect::<Vec<_>>()).to_vec(),
        _ => bytemuck::cast_slice(&values.collect::<Vec<_>>()).to_vec(),
    }
}

/// What an op makes of tensors.
fn result(backend: &dyn Backend, op: &dyn Op, inputs: &[&Tensor]) -> Result<Tensor, Failed> {
    let plan = op.plan(&inputs.iter().map(|tensor| Some(&tensor.desc)).collect::<Vec<_>>())?;
    let desc = plan.slots.last().cloned().flatten().ok_or("the last slot is the result")?;
    let y = backend.alloc(Contents::Undefined(desc.bytes()))?;
    let mut spans: Vec<_> = inputs.iter().map(|tensor| Some(tensor.span.clone())).collect();
    spans.push(Some(y.span()));
    backend.dispatch(&plan, &spans)?;
    Ok(Tensor { desc, span: y.span() })
}

/// Caches, and rows that look into them.
struct Rows {
    op: AttentionCache,
    head_dim: usize,
    /// `[pages, page_steps]` of them.
    cache: [Tensor; 2],
    q: Vec<f32>,
    pages: Vec<Vec<u32>>,
    positions: Vec<u32>,
}

impl Rows {
    /// Seven rows over forty pages of five positions.
    fn new(backend: &dyn Backend, dtype: DType, head_dim: usize, chunk: usize) -> Result<Self, Failed> {
        let heads = 3;
        let desc = TensorDesc::new(dtype, [40, 5, heads * head_dim]);
        let tensor = |name: &str| {
            let bytes = narrowed(dtype, noise(&format!("{name}/{desc}"), desc.elements()));
            filled(backend, desc.clone(), &bytes)
        };
        Ok(Self {
            op: AttentionCache { heads, scale: 0.7, extra: 1, chunk },
            head_dim,
            cache: [tensor("keys")?, tensor("values")?],
            q: noise("queries", 7 * (heads * head_dim + 1)).collect(),
            pages: (0..7_u32).map(|r| (0..9).map(|i| (r * 11 + i * 3) % 40).collect()).collect(),
            positions: vec![0, 44, 13, 19, 20, 31, 5],
        })
    }

    fn width(&self) -> usize {
        self.op.heads * self.head_dim
    }

    /// Bits of the results of these rows, in one launch, merged where there are chunks.
    fn attend(&self, backend: &dyn Backend, rows: &[usize]) -> Result<Vec<Vec<u32>>, Failed> {
        let cols = self.width() + 1;
        let q: Vec<f32> = rows.iter().flat_map(|r| &self.q[r * cols..][..cols]).copied().collect();
        let q = filled(backend, TensorDesc::f32([rows.len(), cols]), bytemuck::cast_slice(&q))?;
        let pages: Vec<u32> = rows.iter().flat_map(|&r| self.pages[r].clone()).collect();
        let desc = TensorDesc::u32([rows.len(), self.pages[0].len()]);
        let pages = filled(backend, desc, bytemuck::cast_slice(&pages))?;
        let positions: Vec<u32> = rows.iter().map(|&r| self.positions[r]).collect();
        let positions = filled(backend, TensorDesc::u32([rows.len()]), bytemuck::cast_slice(&positions))?;
        let [k, v] = &self.cache;
        let mut y = result(backend, &self.op, &[&q, k, v, &pages, &positions])?;
        if y.desc.shape.len() == 4 {
            y = result(backend, &AttentionMerge, &[&y])?;
        }
        equal("the result", &y.desc, &TensorDesc::f32([rows.len(), self.width()]))?;
        let bits: Vec<u32> = bytemuck::pod_collect_to_vec(&backend.download(&y.span)?);
        Ok(bits.chunks_exact(self.width()).map(<[u32]>::to_vec).collect())
    }
}

/// Both forms of heads, in one chunk and in several, in every type.
fn every_kind(
    backend: &dyn Backend,
    check: impl Fn(&mut Rows, &str) -> Result<(), Failed>,
) -> Result<(), Failed> {
    for dtype in TYPES {
        for (head_dim, chunk) in [(64, 45), (64, 16), (20, 45), (20, 7)] {
            let mut rows = Rows::new(backend, dtype, head_dim, chunk)?;
            check(&mut rows, &format!("{dtype}, head_dim {head_dim}, chunks of {chunk}"))?;
        }
    }
    Ok(())
}

fn company(backend: Arc<dyn Backend>) -> Result<(), Failed> {
    every_kind(&*backend, |rows, kind| {
        let together = rows.attend(&*backend, &[0, 1, 2, 3, 4, 5, 6])?;
        let finite = together.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite());
        ensure(finite && together[0] != together[1], || format!("{kind}: no results"))?;
        for (r, among) in together.iter().enumerate() {
            equal(&format!("{kind}: row {r} alone"), &rows.attend(&*backend, &[r])?[0], among)?;
        }
        let some = rows.attend(&*backend, &[5, 1, 1, 3])?;
        for (i, r) in [5, 1, 1, 3].into_iter().enumerate() {
            equal(&format!("{kind}: row {r} among four"), &some[i], &together[r])?;
        }
        // the others become something else altogether
        let cols = rows.width() + 1;
        let page = rows.pages[3][0];
        for r in [0, 1, 2, 4, 5, 6] {
            rows.q[r * cols..][..cols].fill(f32::NAN);
            rows.positions[r] = NONE;
            rows.pages[r].fill(page);
        }
        let changed = rows.attend(&*backend, &[0, 1, 2, 3, 4, 5, 6])?;
        equal(&format!("{kind}: row 3 beside others"), &changed[3], &together[3])
    })
}

fn unused_room(backend: Arc<dyn Backend>) -> Result<(), Failed> {
    every_kind(&*backend, |rows, kind| {
        let all = [0, 2, 3, 4, 5, 6];
        let before = rows.attend(&*backend, &all)?;
        // pages behind those that a row needs do not exist
        for (pages, position) in rows.pages.iter_mut().zip(&rows.positions) {
            let needed = (*position as usize + 1).div_ceil(5);
            pages[needed..].fill(NONE);
        }
        equal(&format!("{kind}: no pages behind the last"), &rows.attend(&*backend, &all)?, &before)?;
        // more chunks, which are empty; where there was one, it is as long as the room
        if rows.op.chunks(45) > 1 {
            rows.pages.iter_mut().for_each(|pages| pages.extend([NONE; 8]));
            equal(&format!("{kind}: more room"), &rows.attend(&*backend, &all)?, &before)?;
        }
        // what lies in the cache behind the last key is not looked at
        let row = 2;
        rows.pages[row][..9].copy_from_slice(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let alone = rows.attend(&*backend, &[row])?;
        let keys = rows.positions[row] as usize + 1;
        for tensor in &rows.cache {
            let rest = tensor.span.bytes / 200 * keys;
            let span = tensor.span.slice(rest, tensor.span.bytes - rest)?;
            backend.upload(&span, &vec![0xff; span.bytes])?;
        }
        equal(&format!("{kind}: NaN behind the last key"), &rows.attend(&*backend, &[row])?, &alone)
    })
}

/// Every step of two rows is written and looked at in one graph; the host knows what must lie in the caches by then.
fn replays(backend: Arc<dyn Backend>) -> Result<(), Failed> {
    const STEPS: usize = 9;
    let judge: Arc<dyn Backend> = Arc::new(CpuBackend::reference()?);
    for dtype in TYPES {
        for (head_dim, chunk) in [(64, 100), (5, 4)] {
            let width = 2 * head_dim;
            let pages = [[4, 1, 3], [0, 5, NONE]];
            let desc = TensorDesc::new(dtype, [6, 3, width]);
            let run = |backend: &Arc<dyn Backend>| -> Result<_, Failed> {
                let memory = |name: &str| {
                    filled(&**backend, desc.clone(), &narrowed(dtype, noise(name, desc.elements())))
                };
                let [k, v] = [memory("keys")?, memory("values")?];
                let pages =
                    filled(&**backend, TensorDesc::u32([2, 3]), bytemuck::cast_slice(pages.as_flattened()))?;
                let program = program(backend.clone(), [&k, &v, &pages], head_dim, chunk)?;
                let mut results = Vec::new();
                for step in 0..STEPS {
                    let x: Vec<f32> = noise(&format!("step {step}"), 2 * 3 * width).collect();
                    let positions = [u32::try_from(step)?, u32::try_from(step)?];
                    let inputs: [(&str, &[u8]); 2] =
                        [("x", bytemuck::cast_slice(&x)), ("positions", bytemuck::cast_slice(&positions))];
                    program.run(&inputs)?;
                    results.push(program.output_f32("y")?);
                }
                let caches = [backend.download(&k.span)?, backend.download(&v.span)?];
                Ok((results, caches))
            };
            let kind = format!("{dtype}, head_dim {head_dim}, chunks of {chunk}");
            let (got, caches) = run(&backend)?;
            let (want, judged) = run(&judge)?;
            ensure(caches == judged, || format!("{kind}: the caches differ"))?;
            for (step, (got, want)) in got.iter().zip(&want).enumerate() {
                let worst = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
                let nan = got.iter().any(|value| value.is_nan());
                ensure(worst <= 1e-5 && !nan, || format!("{kind}: step {step} is off by {worst:e}"))?;
            }
            // what was written is there, at its place, and the rest is as it was
            let mut keys: Vec<f32> = noise("keys", desc.elements()).collect();
            for step in 0..STEPS {
                let x: Vec<f32> = noise(&format!("step {step}"), 2 * 3 * width).collect();
                for (r, pages) in pages.iter().enumerate() {
                    let page = pages[step / 3];
                    if page < 6 {
                        let place = page as usize * 3 + step % 3;
                        let row = &x[(r * 3 + 1) * width..][..width];
                        keys[place * width..][..width].copy_from_slice(row);
                    }
                }
            }
            ensure(caches[0] == narrowed(dtype, keys.into_iter()), || format!("{kind}: keys are misplaced"))?;
        }
    }
    Ok(())
}

/// `y = attention(x, caches with x in them)`.
fn program(
    backend: Arc<dyn Backend>,
    [k, v, pages]: [&Tensor; 3],
    head_dim: usize,
    chunk: usize,
) -> Result<Program, Failed> {
    let width = k.desc.shape[2];
    let failed = |error: DeviceError| Failed::from(error);
    let mut g = GraphBuilder::new(Edits::new());
    let x = g.input("x", TensorDesc::f32([2, 3 * width]))?;
    let positions = g.input("positions", TensorDesc::u32([2]))?;
    let [k, v, pages] = [k, v, pages].map(|tensor| g.constant(tensor));
    let write = CacheWrite { steps: 1, k_first: width, v_first: 2 * width };
    let updated = g.op(&write, &[Some(x), Some(x), Some(positions), Some(pages), Some(k), Some(v)])?;
    ensure(updated == k, || "the first cache is not what goes on".into())?;
    let attention = AttentionCache { heads: width / head_dim, scale: 0.5, extra: 1, chunk };
    let mut y = g.op(&attention, &[Some(x), Some(k), Some(v), Some(pages), Some(positions)])?;
    if g.desc(y).shape.len() == 4 {
        y = g.op(&AttentionMerge, &[Some(y)])?;
    }
    g.output("y", y)?;
    Program::new(backend, g.finish()?).map_err(failed)
}
