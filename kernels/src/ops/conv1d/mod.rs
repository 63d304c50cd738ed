//! Convolution over time, channels last, with padding, ELU before and after, and a residual.
//!
//! ```text
//! y[b, t, o] = after(bias[o] + sum over k, c of before(padded[b, t * stride + k * dilation, c]) * weight[o, k, c])
//!              + residual[b, t, o]
//! padded[b, i, c] = x[b, source(i - pad_left), c], or 0 where there is no source
//! out_steps = (in_steps + pad_left + pad_right - dilation * (kernel - 1) - 1) / stride + 1, rounded down
//! ```
//!
//! The source of step j = i - pad_left is j itself inside the input; outside, [`PadMode`] decides. Reflection follows
//! `EncodecConv1d._pad1d` of HF `modeling_encodec.py` on inputs no longer than a pad too: the input is first
//! lengthened by zeros to L = max(pad_left, pad_right) + 1 steps (otherwise L = in_steps), reflected over that
//! length, and cut to the length that the pads ask for. So j < 0 becomes -j, j >= L becomes 2 (L - 1) - j, and where
//! the result is not inside the input the value is 0.
//!
//! ELU is applied to the input before padding; ELU(0) = 0, so zero padding commutes with it.
//!
//! How much padding a layer wants, including what a last partial stride needs, is the model's decision.

mod cases;
mod cpu;
pub(in crate::ops) mod host;
mod reference;

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
    /// Taps.
    pub kernel: u32,
    /// Distance of consecutive windows, in input steps.
    pub stride: u32,
    /// Distance of consecutive taps, in input steps.
    pub dilation: u32,
    /// Steps before the first of x.
    pub pad_left: u32,
    /// 0 zero, 1 reflect, 2 replicate.
    pub pad_mode: u32,
    /// Length L that reflection works on.
    pub reflect_steps: u32,
    /// 0 none, 1 ELU.
    pub input_activation: u32,
    /// 0 none, 1 ELU.
    pub output_activation: u32,
    /// 1 where bias is bound.
    pub has_bias: u32,
    /// 1 where residual is bound.
    pub has_residual: u32,
    pad: u32,
}

/// What stands before and after the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PadMode {
    /// Zeros.
    #[default]
    Zero,
    /// The input mirrored at its first and last step, which are not repeated.
    Reflect,
    /// The first and the last step, repeated.
    Replicate,
}

/// An elementwise function fused into a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// v above 0, e^v - 1 below.
    Elu,
}

impl Activation {
    /// Its number in parameter blocks.
    pub(in crate::ops) const fn code(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Elu => 1,
        }
    }
}

/// Side of the square tile of y that a workgroup makes; `TILE` in the WGSL.
const TILE: u32 = 64;

/// Rows and columns of y, `[batch * out_steps, out_channels]`, that a block of the PTX forms makes.
const PTX_TILE: [u64; 2] = [64, 64];
const PTX_TENSOR_TILE: [u64; 2] = [128, 64];
const PTX_SLIM_TILE: [u64; 2] = [128, 32];
/// Steps of y that a block of the form for few channels makes, and padded steps that its memory holds.
const PTX_NARROW_STEPS: u32 = 128;
const PTX_NARROW_WINDOW: u64 = 192;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "conv1d_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("weight", DType::F32),
        Slot::maybe("bias", DType::F32),
        Slot::maybe("residual", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![
        Params; batch, in_steps, in_channels, out_steps, out_channels, kernel, stride, dilation, pad_left, pad_mode,
        reflect_steps, input_activation, output_activation, has_bias, has_residual
    ],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("conv1d.wgsl"), "conv1d_f32", [256, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        let tiles = u64::from(p.out_steps.div_ceil(TILE)) * u64::from(p.out_channels.div_ceil(TILE));
        fold_groups(u64::from(p.batch) * tiles)
    })],
    ptx: &[
        Ptx {
            takes: |params| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                p.in_channels.is_multiple_of(16) && (16..=32).contains(&p.out_channels)
            },
            registers: 128,
            static_shared: 22_528,
            ..Ptx::new(
                include_str!("conv1d_f32_3xtf32_slim.ptx"),
                "conv1d_f32_3xtf32_slim",
                [128, 1, 1],
                |params, _| {
                    let p: Params = bytemuck::pod_read_unaligned(params);
                    tiles([p.batch, p.out_steps], p.out_channels.into(), PTX_SLIM_TILE)
                },
            )
        },
        Ptx {
            takes: |params| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                p.in_channels.is_multiple_of(16) && p.out_channels >= 32
            },
            registers: 224,
            static_shared: 36_864,
            ..Ptx::new(
                include_str!("conv1d_f32_3xtf32.ptx"),
                "conv1d_f32_3xtf32",
                [128, 1, 1],
                |params, _| {
                    let p: Params = bytemuck::pod_read_unaligned(params);
                    tiles([p.batch, p.out_steps], p.out_channels.into(), PTX_TENSOR_TILE)
                },
            )
        },
        Ptx {
            takes: |params| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                let [stride, kernel, dilation] = [p.stride, p.kernel, p.dilation].map(u64::from);
                let reach =
                    u64::from(PTX_NARROW_STEPS - 1) * stride + (kernel - 1).saturating_mul(dilation) + 1;
                p.in_channels.is_multiple_of(16) && p.out_channels <= 4 && reach <= PTX_NARROW_WINDOW
            },
            static_shared: 19_584,
            ..Ptx::new(
                include_str!("conv1d_f32_narrow.ptx"),
                "conv1d_f32_narrow",
                [128, 1, 1],
                |params, _| {
                    let p: Params = bytemuck::pod_read_unaligned(params);
                    let steps = p.out_steps.div_ceil(PTX_NARROW_STEPS);
                    blocks(u64::from(p.batch) * u64::from(steps) * u64::from(p.out_channels))
                },
            )
        },
        Ptx {
            registers: 120,
            static_shared: 18_432,
            ..Ptx::new(include_str!("conv1d_f32.ptx"), "conv1d_f32", [128, 1, 1], |params, _| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                tiles([p.batch, p.out_steps], p.out_channels.into(), PTX_TILE)
            })
        },
    ],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// Blocks of a PTX form for a matrix of `sequences * rows` by `columns`, cut into tiles; rows of all sequences follow
/// one another.
pub(in crate::ops) fn tiles(
    [sequences, rows]: [u32; 2],
    columns: u64,
    [tile_rows, tile_columns]: [u64; 2],
) -> [u32; 3] {
    let rows = u64::from(sequences) * u64::from(rows);
    blocks(rows.div_ceil(tile_rows) * columns.div_ceil(tile_columns))
}

/// Lays `blocks` out along x, and over y where x is too short. A kernel recovers its number as
/// `ctaid.y * nctaid.x + ctaid.x` and leaves when it is past the end.
pub(in crate::ops) fn blocks(blocks: u64) -> [u32; 3] {
    const LIMIT: u64 = i32::MAX as u64;
    let y = blocks.div_ceil(LIMIT).max(1);
    let fits = |v: u64| u32::try_from(v).expect("at most 2^31 - 1 after folding");
    [fits(blocks.div_ceil(y)), fits(y), 1]
}

/// Convolution over time.
#[derive(Clone, Copy, Debug)]
pub struct Conv1d {
    /// Distance of consecutive windows, in input steps; at least 1.
    pub stride: usize,
    /// Distance of consecutive taps, in input steps; at least 1.
    pub dilation: usize,
    /// Steps before the first of x.
    pub pad_left: usize,
    /// Steps after the last of x.
    pub pad_right: usize,
    /// What those steps hold.
    pub pad: PadMode,
    /// Applied to x.
    pub input_activation: Activation,
    /// Applied to the sum and the bias, before the residual is added.
    pub output_activation: Activation,
}

impl Default for Conv1d {
    /// Stride 1, dilation 1, no padding, no activation.
    fn default() -> Self {
        Self {
            stride: 1,
            dilation: 1,
            pad_left: 0,
            pad_right: 0,
            pad: PadMode::Zero,
            input_activation: Activation::None,
            output_activation: Activation::None,
        }
    }
}

impl Conv1d {
    /// Plans the convolution: x f32 `[batch, in_steps, in_channels]`, weight f32
    /// `[out_channels, kernel, in_channels]`, bias f32 `[out_channels]`, residual and y f32
    /// `[batch, out_steps, out_channels]`.
    ///
    /// Refuses shapes that do not fit, a kernel longer than the padded input (an input of no steps gives no steps),
    /// padding without input, and padded inputs of more than 2^31 - 1 steps.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        bias: Option<&TensorDesc>,
        residual: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[batch, in_steps, in_channels]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [batch, in_steps, in_channels]"));
        };
        let (DType::F32, &[out_channels, kernel, weight_channels]) = (weight.dtype, weight.shape.as_slice())
        else {
            return Err(ShapeError::tensor(op, "weight", weight, "F32 [out_channels, kernel, in_channels]"));
        };
        if in_channels == 0 {
            return Err(ShapeError::tensor(op, "x", x, "at least one channel"));
        }
        if weight_channels != in_channels {
            let expected = format!("F32 [{out_channels}, {kernel}, {in_channels}] (channels of x)");
            return Err(ShapeError::tensor(op, "weight", weight, expected));
        }
        for (slot, value) in [("kernel", kernel), ("stride", self.stride), ("dilation", self.dilation)] {
            if value == 0 {
                return Err(ShapeError::value(op, slot, value, "at least 1"));
            }
        }
        let out_steps = self.out_steps(in_steps, kernel)?;
        let y = TensorDesc::f32([batch, out_steps, out_channels]);
        if let Some(bias) = bias {
            ShapeError::expect(op, "bias", bias, &TensorDesc::f32([out_channels]), "first axis of weight")?;
        }
        if let Some(residual) = residual {
            ShapeError::expect(op, "residual", residual, &y, "the shape of y")?;
        }
        let longest_pad = self.pad_left.max(self.pad_right);
        let params = Params {
            batch: ShapeError::size(op, "batch", batch)?,
            in_steps: ShapeError::size(op, "in_steps", in_steps)?,
            in_channels: ShapeError::size(op, "in_channels", in_channels)?,
            out_steps: ShapeError::size(op, "out_steps", out_steps)?,
            out_channels: ShapeError::size(op, "out_channels", out_channels)?,
            kernel: ShapeError::size(op, "kernel", kernel)?,
            stride: ShapeError::size(op, "stride", self.stride)?,
            dilation: ShapeError::size(op, "dilation", self.dilation)?,
            pad_left: ShapeError::size(op, "pad_left", self.pad_left)?,
            pad_mode: match self.pad {
                PadMode::Zero => 0,
                PadMode::Reflect => 1,
                PadMode::Replicate => 2,
            },
            reflect_steps: ShapeError::size(op, "in_steps", in_steps.max(longest_pad + 1))?,
            input_activation: self.input_activation.code(),
            output_activation: self.output_activation.code(),
            has_bias: u32::from(bias.is_some()),
            has_residual: u32::from(residual.is_some()),
            pad: 0,
        };
        let read = [Some(x), Some(weight), bias, residual];
        let bytes = read.iter().flatten().map(|d| d.bytes()).sum::<usize>() + y.bytes();
        let out_item = 4 * out_steps * out_channels;
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: bytes as u64, flops: 2 * (y.elements() * kernel * in_channels) as u64 },
            slots: read.into_iter().map(Option::<&TensorDesc>::cloned).chain([Some(y)]).collect(),
            splits: vec![Split {
                items: batch,
                count_at: std::mem::offset_of!(Params, batch),
                first_at: None,
                item_bytes: vec![4 * in_steps * in_channels, 0, 0, out_item, out_item],
            }],
        })
    }

    /// Steps of y for `in_steps` of x and `kernel >= 1` taps; refuses what [`Conv1d::plan`] refuses.
    pub fn out_steps(&self, in_steps: usize, kernel: usize) -> Result<usize, ShapeError> {
        let op = INFO.name;
        // the kernels index padded steps as i32
        const LONGEST: usize = i32::MAX as usize;
        let padded = in_steps.saturating_add(self.pad_left).saturating_add(self.pad_right);
        if padded > LONGEST {
            return Err(ShapeError::value(op, "in_steps", padded, format!("at most {LONGEST} with padding")));
        }
        let reach = self.dilation.saturating_mul(kernel.saturating_sub(1)).saturating_add(1);
        match (in_steps, padded >= reach) {
            (0, false) => Ok(0),
            (0, true) => {
                let expected = format!("at least 1, since padding alone fills a window of {reach}");
                Err(ShapeError::value(op, "in_steps", in_steps, expected))
            }
            (_, false) => {
                let expected = format!("at least {reach} with padding (dilation * (kernel - 1) + 1)");
                Err(ShapeError::value(op, "in_steps", padded, expected))
            }
            (_, true) => Ok((padded - reach) / self.stride + 1),
        }
    }
}

impl Op for Conv1d {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), bias, residual] = inputs else {
            return Err(ShapeError::value(
                INFO.name,
                "inputs",
                inputs.len(),
                "x, weight, bias or none, residual or none",
            ));
        };
        self.plan(x, weight, bias, residual)
    }
}
