//! A row of a linear layer for few rows is the same to the last bit whatever rows are beside it, how many, and what is in
//! them.

use crate::{Executor, cuda, ptx_sim, wgpu_or_skip};
use auscult_kernels::ops::linear::Activation;
use auscult_kernels::ops::linear_rows::{self, LinearRows};
use auscult_kernels::{DType, KernelInfo, Plan, Ptx, TensorDesc, noise};
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Backend, Contents, CpuBackend, CudaBackend, Span, WgpuBackend};
use half::{bf16, f16};
use libtest_mimic::{Completion, Failed, Trial};

const KERNELS: [(&KernelInfo, DType); 3] =
    [(&linear_rows::F32, DType::F32), (&linear_rows::F16, DType::F16), (&linear_rows::BF16, DType::BF16)];

/// Rows that are multiplied together, of which some are multiplied again in smaller company.
const ROWS: usize = 64;

/// First row and number of rows of the smaller companies.
const COMPANIES: [(usize, usize); 7] = [(0, 1), (63, 1), (12, 1), (12, 2), (11, 3), (9, 7), (5, 20)];

/// Columns, and outs of three weights; every PTX form takes one of them.
const SHAPES: [(usize, [usize; 3]); 4] =
    [(1032, [17, 5, 3]), (33, [9, 2, 1]), (40, [2100, 13, 2]), (4104, [5, 2, 9])];

/// Every input of a launch.
struct Inputs {
    cols: usize,
    outs: [usize; 3],
    dtype: DType,
    x: Vec<f32>,
    weights: [Vec<u8>; 3],
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Inputs {
    fn new(dtype: DType, cols: usize, outs: [usize; 3]) -> Self {
        let values = |name: &str, n: usize| noise(&format!("alone/{dtype}/{cols}/{name}"), n);
        let weight = |(name, outs): (&str, usize)| -> Vec<u8> {
            let values = values(name, outs * cols);
            match dtype {
                DType::F16 => values.flat_map(|v| f16::from_f32(v).to_ne_bytes()).collect(),
                DType::BF16 => values.flat_map(|v| bf16::from_f32(v).to_ne_bytes()).collect(),
                _ => values.flat_map(f32::to_ne_bytes).collect(),
            }
        };
        let total = outs.iter().sum::<usize>();
        Self {
            cols,
            outs,
            dtype,
            x: values("x", ROWS * cols).collect(),
            weights: [("weight", outs[0]), ("weight_b", outs[1]), ("weight_c", outs[2])].map(weight),
            bias: values("bias", total).collect(),
            residual: values("residual", ROWS * total).collect(),
        }
    }

    fn total(&self) -> usize {
        self.outs.iter().sum()
    }

    fn plan(&self, rows: usize) -> Plan {
        let [a, b, c] = self.outs.map(|outs| TensorDesc::new(self.dtype, [outs, self.cols]));
        let bias = TensorDesc::f32([self.total()]);
        let residual = TensorDesc::f32([rows, self.total()]);
        let op = LinearRows { activation: Activation::Gelu };
        op.plan(&TensorDesc::f32([rows, self.cols]), &a, [Some(&b), Some(&c)], Some(&bias), Some(&residual))
            .expect("shapes fit")
    }

    /// Rows `first` .. `first + rows` of y, where nothing else is there.
    fn run(&self, backend: &dyn Backend, first: usize, rows: usize) -> Result<Vec<u8>, Failed> {
        let of = |values: &[f32], width: usize| {
            bytemuck::cast_slice(&values[first * width..(first + rows) * width]).to_vec()
        };
        let [a, b, c] = self.weights.clone();
        let bias = bytemuck::cast_slice(&self.bias).to_vec();
        let inputs = [of(&self.x, self.cols), a, b, c, bias, of(&self.residual, self.total())];
        let mut spans: Vec<Option<Span>> = Vec::new();
        for bytes in inputs {
            // a binding is of whole words
            let length = bytes.len();
            let mut padded = bytes;
            padded.resize(length.next_multiple_of(4), 0);
            let buffer = backend.alloc(Contents::Host(HostBytes::from_vec(padded)))?;
            spans.push(Some(buffer.span().slice(0, length)?));
        }
        let y = backend.alloc(Contents::Undefined(4 * rows * self.total()))?.span();
        spans.push(Some(y.clone()));
        backend.dispatch(&self.plan(rows), &spans)?;
        Ok(backend.download(&y)?)
    }
}

/// All rows together, then some of them, then all with NaN in every row but one.
fn alone(backend: &dyn Backend, mut inputs: Inputs) -> Result<(), Failed> {
    let (cols, row) = (inputs.cols, 4 * inputs.total());
    let together = inputs.run(backend, 0, ROWS)?;
    let same = |what: &str, got: &[u8], (first, rows): (usize, usize)| -> Result<(), Failed> {
        if got == &together[first * row..(first + rows) * row] {
            return Ok(());
        }
        Err(format!("{cols} columns: {what}: rows {first} and {rows} on differ from those among {ROWS}")
            .into())
    };
    for (first, rows) in COMPANIES {
        same("fewer rows", &inputs.run(backend, first, rows)?, (first, rows))?;
    }
    let one = 13;
    for (i, x) in inputs.x.iter_mut().enumerate() {
        if i / cols != one {
            *x = f32::NAN;
        }
    }
    let beside = inputs.run(backend, 0, ROWS)?;
    same("NaN beside", &beside[one * row..(one + 1) * row], (one, 1))
}

fn all(backend: &dyn Backend, dtype: DType) -> Result<(), Failed> {
    SHAPES.iter().try_for_each(|&(cols, outs)| alone(backend, Inputs::new(dtype, cols, outs)))
}

/// Those shapes that a form takes, on an executor that runs no other.
fn taken(backend: &dyn Backend, form: &Ptx, dtype: DType) -> Result<(), Failed> {
    let all = SHAPES.iter().map(|&(cols, outs)| Inputs::new(dtype, cols, outs));
    let mut taken = all.filter(|inputs| (form.takes)(&inputs.plan(ROWS).params)).peekable();
    taken.peek().ok_or("no shape that it takes")?;
    taken.try_for_each(|inputs| alone(backend, inputs))
}

/// One test for each kernel and executor, and each PTX form.
pub fn trials(
    cpu: &Executor<CpuBackend>,
    wgpu: &Executor<WgpuBackend>,
    cuda: &Executor<CudaBackend>,
    ptx_sim: &ptx_sim::Forms,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (kernel, dtype) in KERNELS {
        let name = |executor: &str| format!("alone::{}::{executor}", kernel.name);
        {
            let cpu = cpu.clone();
            trials.push(Trial::test(name("cpu"), move || all(&*cpu?, dtype)));
        }
        {
            let wgpu = wgpu.clone();
            trials.push(Trial::ignorable_test(name("wgpu"), move || match wgpu_or_skip(&wgpu) {
                Ok(wgpu) => all(&*wgpu, dtype).map(|()| Completion::Completed),
                Err(skipped) => skipped,
            }));
        }
        for form in kernel.ptx {
            let on_cuda = name(&format!("cuda::{}", form.entry));
            trials.push(cuda::form_trial(on_cuda, cuda, &[form], move |gpus| taken(&gpus[0], form, dtype)));
            let forms = ptx_sim.clone();
            trials.push(Trial::test(name(&format!("ptx_sim::{}", form.entry)), move || {
                taken(&*forms.executor(form.entry)?, form, dtype)
            }));
        }
    }
    trials
}
