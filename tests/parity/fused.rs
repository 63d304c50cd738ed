//! A launch that stands for two writes what the two do, bit for bit.

use crate::{Executor, cuda, ptx_sim, wgpu_or_skip};
use auscult_kernels::ops::capture::Capture;
use auscult_kernels::ops::linear::Activation;
use auscult_kernels::ops::linear_half::LinearHalf;
use auscult_kernels::ops::linear_half_capture;
use auscult_kernels::{Access, Case, DType, Plan, Ptx, TensorDesc};
use auscult_runtime::selftest::same_bits;
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Backend, Contents, CpuBackend, CudaBackend, WgpuBackend};
use libtest_mimic::{Completion, Failed, Trial};
use std::sync::Arc;

/// Arithmetic of a case that the interpreter runs for this, too, at most.
const SIMULATED_FLOPS: u64 = 25_000_000;

/// A case of a launch, and plans of the two that it stands for.
struct Fused {
    case: Case,
    product: Plan,
    capture: Plan,
}

impl Fused {
    fn new(case: Case) -> Self {
        let [Some(x), Some(weight), bias, residual, Some(y), Some(kept)] = case.plan.slots.as_slice() else {
            panic!("{} has six slots", case.plan)
        };
        let op = LinearHalf { activation: Activation::None, out: DType::F32 };
        let mut product = op.plan(x, weight, bias.as_ref(), residual.as_ref()).expect("shapes fit");
        // of the same layout, and tells the activation
        product.params.clone_from(&case.plan.params);
        let capture = Capture { dtype: kept.dtype }.plan(y, None).expect("shapes fit");
        Self { case, product, capture }
    }

    /// On an executor for each of the three launches.
    fn check(&self, fused: &dyn Backend, product: &dyn Backend, capture: &dyn Backend) -> Result<(), Failed> {
        let plan = &self.case.plan;
        let inputs: Vec<Vec<u8>> = (0..4).map(|slot| self.case.input(slot)).collect();
        let got = launch(fused, plan, &inputs)?;
        let y = launch(product, &self.product, &inputs)?.remove(0);
        let kept = launch(capture, &self.capture, &[y.clone(), vec![]])?.remove(0);
        for ((slot, desc), (got, want)) in plan.outputs().zip(got.iter().zip([y, kept])) {
            same_bits(desc, got, &want).map_err(|message| {
                let name = plan.kernel.slots[slot].name;
                format!("{plan}, case `{}`, on {}: `{name}`: {message}", self.case.why, fused.info().id)
            })?;
        }
        Ok(())
    }
}

/// What a launch writes, from the bytes in the slots that it reads.
fn launch(backend: &dyn Backend, plan: &Plan, inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Failed> {
    let mut inputs = inputs.iter();
    let (mut spans, mut written) = (vec![], vec![]);
    for (slot, desc) in plan.kernel.slots.iter().zip(&plan.slots) {
        let contents = match slot.access {
            Access::Read => Contents::Host(HostBytes::from_vec(inputs.next().ok_or("an input")?.clone())),
            _ => Contents::Undefined(desc.as_ref().map_or(0, TensorDesc::bytes)),
        };
        let span = desc.as_ref().map(|_| backend.alloc(contents).map(|buffer| buffer.span())).transpose()?;
        if slot.access != Access::Read {
            written.extend(span.clone());
        }
        spans.push(span);
    }
    backend.dispatch(plan, &spans)?;
    Ok(written.iter().map(|span| backend.download(span)).collect::<Result<_, _>>()?)
}

/// Every case of every fused kernel, on every executor; in PTX, every form beside the same form of the product.
pub fn trials(
    cpu: &Executor<CpuBackend>,
    wgpu: &Executor<WgpuBackend>,
    cuda: &Executor<CudaBackend>,
    forms: &ptx_sim::Forms,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for kernel in [&linear_half_capture::F16, &linear_half_capture::BF16] {
        for case in (kernel.cases)().into_iter().filter(|case| !case.plan.is_empty()) {
            let fused = Arc::new(Fused::new(case));
            let name = |executor: &str| format!("fused::{}::{}::{executor}", kernel.name, fused.case.why);
            {
                let (fused, cpu) = (Arc::clone(&fused), cpu.clone());
                trials.push(Trial::test(name("cpu"), move || {
                    let cpu = cpu?;
                    fused.check(&*cpu, &*cpu, &*cpu)
                }));
            }
            {
                let (fused, wgpu) = (Arc::clone(&fused), wgpu.clone());
                trials.push(Trial::ignorable_test(name("wgpu"), move || match wgpu_or_skip(&wgpu) {
                    Ok(gpu) => fused.check(&*gpu, &*gpu, &*gpu).map(|()| Completion::Completed),
                    Err(skipped) => skipped,
                }));
            }
            for trio in trios(&fused) {
                let on_cuda = Arc::clone(&fused);
                let [form, product, capture] = trio;
                trials.push(cuda::form_trial(
                    name(&format!("cuda::{}", form.entry)),
                    cuda,
                    &trio,
                    move |gpus| on_cuda.check(&gpus[0], &gpus[1], &gpus[2]),
                ));
                if fused.case.plan.cost.flops <= SIMULATED_FLOPS {
                    let (fused, forms) = (Arc::clone(&fused), forms.clone());
                    trials.push(Trial::test(name(&format!("ptx_sim::{}", form.entry)), move || {
                        let [form, product, capture] =
                            [form, product, capture].map(|form| forms.executor(form.entry));
                        fused.check(&*form?, &*product?, &*capture?)
                    }));
                }
            }
        }
    }
    trials
}

/// Every PTX form of the launch that takes the case, the same form of the product, and the one that captures.
fn trios(fused: &Fused) -> Vec<[&'static Ptx; 3]> {
    let capture = &fused.capture.kernel.ptx[0];
    let pairs = fused.case.plan.kernel.ptx.iter().zip(fused.product.kernel.ptx);
    let taken = pairs.filter(|(form, _)| (form.takes)(&fused.case.plan.params));
    taken.map(|(form, product)| [form, product, capture]).collect()
}
