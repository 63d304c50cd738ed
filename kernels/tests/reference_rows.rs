//! The reference of a linear layer for few rows against cases worked by hand.

use auscult_kernels::{
    DType, HostSlot, TensorDesc,
    ops::{linear::Activation, linear_rows::LinearRows},
};
use bytemuck::{cast_slice, cast_slice_mut};
use half::{bf16, f16};

const WEIGHTS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Words that hold `values` as `dtype`, all of which it has exactly, and their number of bytes.
fn narrow(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_ne_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_ne_bytes()).collect(),
        _ => cast_slice(values).to_vec(),
    }
}

/// x = [[1, 2], [3, -4]] through weights [[1, 0.5], [-1, 1]], [[0, 2]] and [[2, 0], [4, 4], [0.25, 0]], of which those
/// named are there.
fn run(
    dtype: DType,
    activation: Activation,
    [has_b, has_c]: [bool; 2],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let x = [1.0_f32, 2.0, 3.0, -4.0];
    let desc = |outs| TensorDesc::new(dtype, [outs, 2]);
    let (b, c) = (has_b.then(|| desc(1)), has_c.then(|| desc(3)));
    let total = 2 + usize::from(has_b) + 3 * usize::from(has_c);
    let plan = LinearRows { activation }
        .plan(
            &TensorDesc::f32([2, 2]),
            &desc(2),
            [b.as_ref(), c.as_ref()],
            bias.map(|_| TensorDesc::f32([total])).as_ref(),
            residual.map(|_| TensorDesc::f32([2, total])).as_ref(),
        )
        .expect("shapes fit");
    let mut weights = [vec![1.0, 0.5, -1.0, 1.0], vec![0.0, 2.0], vec![2.0, 0.0, 4.0, 4.0, 0.25, 0.0]]
        .map(|values: Vec<f32>| narrow(dtype, &values));
    for (weight, there) in weights[1..].iter_mut().zip([has_b, has_c]) {
        if !there {
            weight.clear();
        }
    }
    let mut y = vec![f32::NAN; 2 * total];
    let mut slots: Vec<HostSlot<'_>> = std::iter::once(cast_slice(&x))
        .chain(weights.iter().map(Vec::as_slice))
        .chain([bias, residual].map(|values| cast_slice(values.unwrap_or(&[]))))
        .map(HostSlot::Read)
        .collect();
    slots.push(HostSlot::Write(cast_slice_mut(&mut y)));
    (plan.kernel.reference)(&plan.params, &mut slots);
    y
}

#[test]
fn weights_lie_side_by_side() {
    for dtype in WEIGHTS {
        let of = |more| run(dtype, Activation::None, more, None, None);
        assert_eq!(of([false, false]), [2.0, 1.0, 1.0, -7.0], "{dtype}");
        assert_eq!(of([true, false]), [2.0, 1.0, 4.0, 1.0, -7.0, -8.0], "{dtype}");
        assert_eq!(of([false, true]), [2.0, 1.0, 2.0, 12.0, 0.25, 1.0, -7.0, 6.0, -4.0, 0.75], "{dtype}");
        assert_eq!(
            of([true, true]),
            [2.0, 1.0, 4.0, 2.0, 12.0, 0.25, 1.0, -7.0, -8.0, 6.0, -4.0, 0.75],
            "{dtype}"
        );
    }
}

#[test]
fn the_bias_comes_before_and_the_residual_after_the_activation() {
    let (bias, residual) = ([0.5, 7.5, -4.0], [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
    let y = run(DType::F32, Activation::Relu, [true, false], Some(&bias), Some(&residual));
    // relu of [[2.5, 8.5, 0], [1.5, 0.5, -12]]
    assert_eq!(y, [12.5, 28.5, 30.0, 41.5, 50.5, 60.0]);
}

#[test]
fn activations_at_known_points() {
    // erf(1) = 0.8427007929: gelu(sqrt 2) = sqrt 2 * 0.92135039647, and of -sqrt 2 it is that less sqrt 2
    let root = std::f32::consts::SQRT_2;
    let bias = [root - 2.0, -1.0 - root];
    let y = run(DType::F16, Activation::Gelu, [false, false], Some(&bias), None);
    assert!((y[0] - 1.302_986_2).abs() < 1e-6 && (y[1] - (1.302_986_2 - root)).abs() < 1e-6, "{y:?}");
    // elu of [[-1, 1], [-2, -7]]
    let y = run(DType::BF16, Activation::Elu, [false, false], Some(&[-3.0, 0.0]), None);
    let want = [(-1.0_f32).exp() - 1.0, 1.0, (-2.0_f32).exp() - 1.0, (-7.0_f32).exp() - 1.0];
    assert!(y.iter().zip(want).all(|(y, want)| (y - want).abs() < 1e-6), "{y:?}");
}
