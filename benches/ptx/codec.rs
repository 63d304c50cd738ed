//! The codec.

use super::job::{CLIPS, Job, Result, SAMPLES, job};
use auscult_kernels::ops::{
    conv_transpose1d::ConvTranspose1d, conv1d, conv1d::Conv1d, lstm::Lstm, rvq_decode::RvqDecode,
    rvq_encode::RvqEncode,
};
use auscult_kernels::{Fill, TensorDesc};

/// Steps of all clips at one step for every `hop` samples, behind few steps of one.
fn steps(few: usize, hop: usize) -> [[usize; 2]; 2] {
    [[1, few], [CLIPS, SAMPLES / hop]]
}

/// Layers of each kind.
pub fn codec() -> Result<Vec<Job>> {
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
