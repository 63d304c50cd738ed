//! Transposed convolution over time, channels last, trimmed, with ELU before and after.
//!
//! ```text
//! raw[b, j * stride + p, o] = sum over i < taps, c of
//!                             before(x[b, j - (taps - 1) + i, c]) * weight[p * out_channels + o, i, c]
//! y[b, t, o] = after(bias[o] + raw[b, t + trim_left, o])
//! out_steps = (in_steps - 1) * stride + kernel - trim_left - trim_right
//! ```
//!
//! with taps = ceil(kernel / stride), p < stride, and x = 0 outside of its steps. [`prepare_weight`] makes this weight
//! from the `[in_channels, out_channels, kernel]` of `torch.nn.ConvTranspose1d`. In this form every x is read where
//! its sum is made: nothing is scattered, and row j of the matrix product holds `stride` consecutive output steps.
//!
//! What is trimmed is the model's decision (HF `modeling_encodec.py`, `EncodecConvTranspose1d.forward`).

mod cases;
mod cpu;
mod reference;

use super::conv1d::{Activation, tiles};
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Independent sequences.
    pub batch: u32,
    /// Steps of x.
    pub in_steps: u32,
    /// Channels of x.
    pub in_channels: u32,
    /// Steps of y.
    pub out_steps: u32,
    /// Channels of y.
    pub out_channels: u32,
    /// Input steps that an output step sees: ceil(kernel / stride).
    pub taps: u32,
    /// Output steps for each input step.
    pub stride: u32,
    /// Raw steps cut from the front.
    pub trim_left: u32,
    /// 0 none, 1 ELU.
    pub input_activation: u32,
    /// 0 none, 1 ELU.
    pub output_activation: u32,
    /// 1 where bias is bound.
    pub has_bias: u32,
    pad: u32,
}

impl Params {
    /// Values of all raw steps of a row.
    fn phases(&self) -> u64 {
        u64::from(self.stride) * u64::from(self.out_channels)
    }
}

/// Side of the square tile of the raw output, seen as rows of `stride * out_channels`; `TILE` in the WGSL.
const TILE: u32 = 64;

/// Rows and columns of the raw output, `[batch * (in_steps + taps - 1), stride * out_channels]`, that a block of the PTX
/// forms makes.
const PTX_TILE: [u64; 2] = [64, 64];
const PTX_TENSOR_TILE: [u64; 2] = [128, 64];

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "conv_transpose1d_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("weight", DType::F32),
        Slot::maybe("bias", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![
        Params; batch, in_steps, in_channels, out_steps, out_channels, taps, stride, trim_left, input_activation,
        output_activation, has_bias
    ],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(
        include_str!("conv_transpose1d.wgsl"),
        "conv_transpose1d_f32",
        [256, 1, 1],
        |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            let row_tiles = (p.in_steps + p.taps - 1).div_ceil(TILE);
            let out_tiles = (p.stride * p.out_channels).div_ceil(TILE);
            fold_groups(u64::from(p.batch) * u64::from(row_tiles) * u64::from(out_tiles))
        },
    )],
    ptx: &[
        Ptx {
            takes: |params| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                p.in_channels.is_multiple_of(16) && p.phases() >= 32
            },
            registers: 224,
            static_shared: 36_864,
            ..Ptx::new(
                include_str!("conv_transpose1d_f32_3xtf32.ptx"),
                "conv_transpose1d_f32_3xtf32",
                [128, 1, 1],
                |params, _| {
                    let p: Params = bytemuck::pod_read_unaligned(params);
                    tiles([p.batch, p.in_steps + p.taps - 1], p.phases(), PTX_TENSOR_TILE)
                },
            )
        },
        Ptx {
            registers: 120,
            static_shared: 18_432,
            ..Ptx::new(
                include_str!("conv_transpose1d_f32.ptx"),
                "conv_transpose1d_f32",
                [128, 1, 1],
                |params, _| {
                    let p: Params = bytemuck::pod_read_unaligned(params);
                    tiles([p.batch, p.in_steps + p.taps - 1], p.phases(), PTX_TILE)
                },
            )
        },
    ],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// Transposed convolution over time.
#[derive(Clone, Copy, Debug)]
pub struct ConvTranspose1d {
    /// Output steps for each input step; at least 1.
    pub stride: usize,
    /// Output steps that an input step reaches; at least 1.
    pub kernel: usize,
    /// Raw steps cut from the front.
    pub trim_left: usize,
    /// Raw steps cut from the end.
    pub trim_right: usize,
    /// Applied to x.
    pub input_activation: Activation,
    /// Applied to the sum and the bias.
    pub output_activation: Activation,
}

impl ConvTranspose1d {
    /// Plans the transposed convolution: x f32 `[batch, in_steps, in_channels]`, weight f32
    /// `[stride * out_channels, taps, in_channels]` from [`prepare_weight`], bias f32 `[out_channels]`, y f32
    /// `[batch, out_steps, out_channels]`.
    ///
    /// Refuses shapes that do not fit, trims longer than the raw output (an input of no steps gives no steps), and raw
    /// outputs of more than 2^32 - 1 steps.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        bias: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[batch, in_steps, in_channels]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [batch, in_steps, in_channels]"));
        };
        if in_channels == 0 {
            return Err(ShapeError::tensor(op, "x", x, "at least one channel"));
        }
        for (slot, value) in [("kernel", self.kernel), ("stride", self.stride)] {
            if value == 0 {
                return Err(ShapeError::value(op, slot, value, "at least 1"));
            }
        }
        let taps = self.kernel.div_ceil(self.stride);
        let form = || {
            format!(
                "F32 [{} * out_channels, {taps}, {in_channels}] (stride, taps, channels of x)",
                self.stride
            )
        };
        let (DType::F32, &[phases, weight_taps, weight_channels]) = (weight.dtype, weight.shape.as_slice())
        else {
            return Err(ShapeError::tensor(op, "weight", weight, form()));
        };
        if phases % self.stride != 0 || weight_taps != taps || weight_channels != in_channels {
            return Err(ShapeError::tensor(op, "weight", weight, form()));
        }
        let out_channels = phases / self.stride;
        if let Some(bias) = bias {
            let why = "first axis of weight / stride";
            ShapeError::expect(op, "bias", bias, &TensorDesc::f32([out_channels]), why)?;
        }
        let out_steps = self.out_steps(in_steps)?;
        let y = TensorDesc::f32([batch, out_steps, out_channels]);
        // of the rows of `stride` raw steps, including the last, which may be partial
        ShapeError::size(op, "in_steps", in_steps.saturating_add(taps).saturating_mul(self.stride))?;
        ShapeError::size(op, "weight", phases)?;
        let params = Params {
            batch: ShapeError::size(op, "batch", batch)?,
            in_steps: ShapeError::size(op, "in_steps", in_steps)?,
            in_channels: ShapeError::size(op, "in_channels", in_channels)?,
            out_steps: ShapeError::size(op, "out_steps", out_steps)?,
            out_channels: ShapeError::size(op, "out_channels", out_channels)?,
            taps: ShapeError::size(op, "kernel", taps)?,
            stride: ShapeError::size(op, "stride", self.stride)?,
            trim_left: ShapeError::size(op, "trim_left", self.trim_left)?,
            input_activation: self.input_activation.code(),
            output_activation: self.output_activation.code(),
            has_bias: u32::from(bias.is_some()),
            pad: 0,
        };
        let read = [Some(x), Some(weight), bias];
        let bytes = read.iter().flatten().map(|d| d.bytes()).sum::<usize>() + y.bytes();
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: bytes as u64,
                // every input step meets every tap of the original kernel once
                flops: 2 * (x.elements() * self.kernel * out_channels) as u64,
            },
            slots: read.into_iter().map(Option::<&TensorDesc>::cloned).chain([Some(y)]).collect(),
            splits: vec![Split {
                items: batch,
                count_at: std::mem::offset_of!(Params, batch),
                first_at: None,
                item_bytes: vec![4 * in_steps * in_channels, 0, 0, 4 * out_steps * out_channels],
            }],
        })
    }

    /// Steps of y for `in_steps` of x; refuses trims longer than the raw output.
    pub fn out_steps(&self, in_steps: usize) -> Result<usize, ShapeError> {
        if in_steps == 0 {
            return Ok(0);
        }
        let raw = (in_steps - 1).saturating_mul(self.stride).saturating_add(self.kernel);
        let trim = self.trim_left.saturating_add(self.trim_right);
        raw.checked_sub(trim).ok_or_else(|| {
            let expected = format!("at most {raw} in all ((in_steps - 1) * stride + kernel)");
            ShapeError::value(INFO.name, "trim", trim, expected)
        })
    }
}

impl Op for ConvTranspose1d {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), bias] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, weight, bias or none"));
        };
        self.plan(x, weight, bias)
    }
}

/// The weight of [`ConvTranspose1d`], `[stride * out_channels, taps, in_channels]`, from the
/// `[in_channels, out_channels, kernel]` of `torch.nn.ConvTranspose1d`.
///
/// Row p * out_channels + o, tap i holds the original tap p + (taps - 1 - i) * stride, or zeros past the kernel.
///
/// # Panics
///
/// If `weight` does not have `shape`, or `stride` is 0.
pub fn prepare_weight(weight: &[f32], shape: [usize; 3], stride: usize) -> Vec<f32> {
    let [ins, outs, kernel] = shape;
    assert_eq!(weight.len(), ins * outs * kernel, "the weight has its shape");
    let taps = kernel.div_ceil(stride);
    let mut prepared = vec![0.0; stride * outs * taps * ins];
    for c in 0..ins {
        for o in 0..outs {
            for k in 0..kernel {
                let (p, i) = (k % stride, taps - 1 - k / stride);
                prepared[((p * outs + o) * taps + i) * ins + c] = weight[(c * outs + o) * kernel + k];
            }
        }
    }
    prepared
}
