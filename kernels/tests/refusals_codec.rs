//! What the codec's ops refuse, by the text of the refusal.

use auscult_kernels::{
    DType, Op, Plan, ShapeError, TensorDesc,
    ops::{
        conv_transpose1d::ConvTranspose1d,
        conv1d::{Activation, Conv1d, PadMode},
        lstm::Lstm,
        rvq_decode::RvqDecode,
        rvq_encode::RvqEncode,
    },
};

fn f32s<const N: usize>(shape: [usize; N]) -> TensorDesc {
    TensorDesc::f32(shape)
}

#[track_caller]
fn refused(plan: Result<Plan, ShapeError>, text: &str) {
    match plan {
        Ok(plan) => panic!("planned {plan}, expected the refusal: {text}"),
        Err(err) => assert_eq!(err.to_string(), text),
    }
}

#[test]
fn conv1d_refuses() {
    let op = Conv1d::default();
    let (x, w, bias) = (f32s([2, 5, 3]), f32s([4, 2, 3]), f32s([4]));
    let plan = |op: Conv1d, x: &TensorDesc, w: &TensorDesc| op.plan(x, w, Some(&bias), None);
    assert!(plan(op, &x, &w).is_ok());

    refused(
        plan(op, &f32s([5, 3]), &w),
        "conv1d_f32: `x` has type and shape F32 [5, 3], expected F32 [batch, in_steps, in_channels]",
    );
    refused(
        plan(op, &TensorDesc::new(DType::F16, [2, 5, 3]), &w),
        "conv1d_f32: `x` has type and shape F16 [2, 5, 3], expected F32 [batch, in_steps, in_channels]",
    );
    refused(
        plan(op, &x, &f32s([4, 6])),
        "conv1d_f32: `weight` has type and shape F32 [4, 6], expected F32 [out_channels, kernel, in_channels]",
    );
    refused(
        plan(op, &x, &f32s([4, 2, 5])),
        "conv1d_f32: `weight` has type and shape F32 [4, 2, 5], expected F32 [4, 2, 3] (channels of x)",
    );
    refused(
        plan(op, &f32s([2, 5, 0]), &f32s([4, 2, 0])),
        "conv1d_f32: `x` has type and shape F32 [2, 5, 0], expected at least one channel",
    );
    refused(plan(op, &x, &f32s([4, 0, 3])), "conv1d_f32: `kernel` has value 0, expected at least 1");
    refused(
        plan(Conv1d { stride: 0, ..op }, &x, &w),
        "conv1d_f32: `stride` has value 0, expected at least 1",
    );
    refused(
        plan(Conv1d { dilation: 0, ..op }, &x, &w),
        "conv1d_f32: `dilation` has value 0, expected at least 1",
    );
    refused(
        op.plan(&x, &w, Some(&f32s([3])), None),
        "conv1d_f32: `bias` has type and shape F32 [3], expected F32 [4] (first axis of weight)",
    );
    refused(
        op.plan(&x, &w, None, Some(&f32s([2, 5, 4]))),
        "conv1d_f32: `residual` has type and shape F32 [2, 5, 4], expected F32 [2, 4, 4] (the shape of y)",
    );
    refused(
        plan(Conv1d { dilation: 5, ..op }, &x, &w),
        "conv1d_f32: `in_steps` has value 5, expected at least 6 with padding (dilation * (kernel - 1) + 1)",
    );
    refused(
        plan(Conv1d { pad_left: 2, pad: PadMode::Reflect, ..op }, &f32s([2, 0, 3]), &w),
        "conv1d_f32: `in_steps` has value 0, expected at least 1, since padding alone fills a window of 2",
    );
    refused(
        plan(Conv1d { pad_left: 1 << 31, ..op }, &x, &w),
        "conv1d_f32: `in_steps` has value 2147483653, expected at most 2147483647 with padding",
    );
    refused(
        Op::plan(&op, &[Some(&x), Some(&w)]),
        "conv1d_f32: `inputs` has value 2, expected x, weight, bias or none, residual or none",
    );
}

#[test]
fn conv_transpose1d_refuses() {
    let (input_activation, output_activation) = (Activation::None, Activation::None);
    let op = ConvTranspose1d {
        stride: 2,
        kernel: 5,
        trim_left: 1,
        trim_right: 1,
        input_activation,
        output_activation,
    };
    let (x, w, bias) = (f32s([2, 5, 3]), f32s([8, 3, 3]), f32s([4]));
    let plan = |op: ConvTranspose1d, x: &TensorDesc, w: &TensorDesc| op.plan(x, w, Some(&bias));
    assert!(plan(op, &x, &w).is_ok());

    refused(
        plan(op, &f32s([5, 3]), &w),
        "conv_transpose1d_f32: `x` has type and shape F32 [5, 3], expected F32 [batch, in_steps, in_channels]",
    );
    refused(
        plan(op, &f32s([2, 5, 0]), &w),
        "conv_transpose1d_f32: `x` has type and shape F32 [2, 5, 0], expected at least one channel",
    );
    for (weight, shape) in [
        (f32s([8, 9]), "F32 [8, 9]"),
        (f32s([7, 3, 3]), "F32 [7, 3, 3]"),
        (f32s([8, 2, 3]), "F32 [8, 2, 3]"),
        (f32s([8, 3, 4]), "F32 [8, 3, 4]"),
        (TensorDesc::new(DType::BF16, [8, 3, 3]), "BF16 [8, 3, 3]"),
    ] {
        refused(
            plan(op, &x, &weight),
            &format!(
                "conv_transpose1d_f32: `weight` has type and shape {shape}, expected F32 [2 * out_channels, 3, 3] \
                 (stride, taps, channels of x)"
            ),
        );
    }
    refused(
        plan(ConvTranspose1d { stride: 0, ..op }, &x, &w),
        "conv_transpose1d_f32: `stride` has value 0, expected at least 1",
    );
    refused(
        plan(ConvTranspose1d { kernel: 0, ..op }, &x, &w),
        "conv_transpose1d_f32: `kernel` has value 0, expected at least 1",
    );
    refused(
        op.plan(&x, &w, Some(&f32s([8]))),
        "conv_transpose1d_f32: `bias` has type and shape F32 [8], expected F32 [4] (first axis of weight / stride)",
    );
    refused(
        plan(ConvTranspose1d { trim_left: 13, ..op }, &x, &w),
        "conv_transpose1d_f32: `trim` has value 14, expected at most 13 in all ((in_steps - 1) * stride + kernel)",
    );
    refused(
        plan(op, &f32s([1, 1 << 31, 3]), &w),
        "conv_transpose1d_f32: `in_steps` has value 4294967302, expected at most 4294967295",
    );
    refused(
        Op::plan(&op, &[Some(&x), None, None]),
        "conv_transpose1d_f32: `inputs` has value 3, expected x, weight, bias or none",
    );
}

#[test]
fn lstm_refuses() {
    let (gates, w) = (f32s([2, 5, 12]), f32s([12, 3]));
    assert!(Lstm.plan(&gates, &w, None).is_ok());

    refused(
        Lstm.plan(&gates, &f32s([12, 3, 1]), None),
        "lstm_f32: `weight` has type and shape F32 [12, 3, 1], expected F32 [4 * hidden, hidden]",
    );
    refused(
        Lstm.plan(&gates, &f32s([9, 3]), None),
        "lstm_f32: `weight` has type and shape F32 [9, 3], expected F32 [12, 3] (four gates)",
    );
    refused(
        Lstm.plan(&f32s([1, 1, 8196]), &f32s([8196, 2049]), None),
        "lstm_f32: `hidden` has value 2049, expected at most 2048, which is what the state of a sequence may take on a GPU",
    );
    refused(
        Lstm.plan(&f32s([5, 12]), &w, None),
        "lstm_f32: `gates` has type and shape F32 [5, 12], expected F32 [batch, steps, 4 * hidden]",
    );
    refused(
        Lstm.plan(&f32s([2, 5, 9]), &w, None),
        "lstm_f32: `gates` has type and shape F32 [2, 5, 9], expected F32 [2, 5, 12] (first axis of weight)",
    );
    refused(
        Lstm.plan(&gates, &w, Some(&f32s([2, 5, 12]))),
        "lstm_f32: `residual` has type and shape F32 [2, 5, 12], expected F32 [2, 5, 3] (the shape of y)",
    );
    refused(Op::plan(&Lstm, &[]), "lstm_f32: `inputs` has value 0, expected gates, weight, residual or none");
}

#[test]
fn rvq_encode_refuses() {
    let (x, books) = (f32s([5, 3]), f32s([4, 7, 3]));
    assert!(RvqEncode.plan(&x, &books).is_ok());

    refused(
        RvqEncode.plan(&f32s([1, 5, 3]), &books),
        "rvq_encode_f32: `x` has type and shape F32 [1, 5, 3], expected F32 [rows, dim]",
    );
    refused(
        RvqEncode.plan(&f32s([5, 0]), &f32s([4, 7, 0])),
        "rvq_encode_f32: `x` has type and shape F32 [5, 0], expected at least one number in a row",
    );
    refused(
        RvqEncode.plan(&f32s([5, 2049]), &f32s([4, 7, 2049])),
        "rvq_encode_f32: `dim` has value 2049, expected at most 2048, which is what the residual of a row may take on a GPU",
    );
    refused(
        RvqEncode.plan(&x, &f32s([7, 3])),
        "rvq_encode_f32: `codebooks` has type and shape F32 [7, 3], expected F32 [stages, entries, dim]",
    );
    refused(
        RvqEncode.plan(&x, &f32s([4, 0, 3])),
        "rvq_encode_f32: `codebooks` has type and shape F32 [4, 0, 3], expected at least one entry",
    );
    refused(
        RvqEncode.plan(&x, &f32s([4, 7, 2])),
        "rvq_encode_f32: `codebooks` has type and shape F32 [4, 7, 2], expected F32 [4, 7, 3] (last axis of x)",
    );
    refused(Op::plan(&RvqEncode, &[Some(&x)]), "rvq_encode_f32: `inputs` has value 1, expected x, codebooks");
}

#[test]
fn rvq_decode_refuses() {
    let (codes, books) = (TensorDesc::u32([5, 4]), f32s([4, 7, 3]));
    assert!(RvqDecode.plan(&codes, &books).is_ok());

    refused(
        RvqDecode.plan(&codes, &f32s([7, 3])),
        "rvq_decode_f32: `codebooks` has type and shape F32 [7, 3], expected F32 [stages, entries, dim]",
    );
    for shape in [[4, 0, 3], [0, 7, 3]] {
        refused(
            RvqDecode.plan(&codes, &f32s(shape)),
            &format!(
                "rvq_decode_f32: `codebooks` has type and shape F32 {shape:?}, expected at least one stage and one entry"
            ),
        );
    }
    refused(
        RvqDecode.plan(&f32s([5, 4]), &books),
        "rvq_decode_f32: `codes` has type and shape F32 [5, 4], expected U32 [rows, stages]",
    );
    refused(
        RvqDecode.plan(&TensorDesc::u32([5, 3]), &books),
        "rvq_decode_f32: `codes` has type and shape U32 [5, 3], expected U32 [5, 4] (stages of codebooks)",
    );
    refused(
        Op::plan(&RvqDecode, &[None, None]),
        "rvq_decode_f32: `inputs` has value 2, expected codes, codebooks",
    );
}
