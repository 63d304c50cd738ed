//! A linear layer in half precision whose result is kept twice: in f32 and rounded, in one launch.
//!
//! `y[r, o] = act(sum_c x[r, c] weight[o, c] + bias[o]) + residual[r, o]`, in f32, and `kept[r, o] = round(y[r, o])` in the
//! type of x, to nearest, ties to even. What [`LinearHalf`](super::linear_half::LinearHalf) into f32 and
//! [`Capture`](super::capture::Capture) of all its rows make in two, bit for bit, without reading y again.

mod cases;
mod cpu;
mod reference;

use super::linear::{Activation, FIELDS, Params};
use super::linear_half::{any, grid, half_type, hopper, piped, product};
use crate::{DType, KernelInfo, Op, Plan, ShapeError, Slot, TensorDesc, Wgsl};

const fn slots(half: DType) -> [Slot; 6] {
    [
        Slot::read("x", half),
        Slot::read("weight", half),
        Slot::maybe("bias", DType::F32),
        Slot::maybe("residual", DType::F32),
        Slot::write("y", DType::F32),
        Slot::write("kept", half),
    ]
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl {
        overrides,
        ..Wgsl::new(include_str!("linear_half_capture.wgsl"), "linear_half_capture", [256, 1, 1], grid)
    }
}

/// f16 into f32 and f16.
pub static F16: KernelInfo = KernelInfo {
    name: "linear_half_capture_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("half_type", 0.0)])],
    ptx: &[
        hopper(include_str!("linear_half_capture_f16_sm90a.ptx"), "linear_half_capture_f16_sm90a"),
        piped(include_str!("linear_half_capture_f16.ptx"), "linear_half_capture_f16"),
        any(include_str!("linear_half_capture_f16_any.ptx"), "linear_half_capture_f16_any"),
    ],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16),
};

/// bf16 into f32 and bf16.
pub static BF16: KernelInfo = KernelInfo {
    name: "linear_half_capture_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("half_type", 1.0)])],
    ptx: &[
        hopper(include_str!("linear_half_capture_bf16_sm90a.ptx"), "linear_half_capture_bf16_sm90a"),
        piped(include_str!("linear_half_capture_bf16.ptx"), "linear_half_capture_bf16"),
        any(include_str!("linear_half_capture_bf16_any.ptx"), "linear_half_capture_bf16_any"),
    ],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16),
};

/// A linear layer into f32 whose result is kept in the half precision of its inputs too.
#[derive(Clone, Copy, Debug)]
pub struct LinearHalfCapture {
    /// What is applied before the residual.
    pub activation: Activation,
}

impl LinearHalfCapture {
    /// Plans y f32 and kept f16 or bf16, both `[rows, outs]`, from x of the type of kept `[rows, cols]`, weight of the same
    /// type `[outs, cols]`, bias f32 `[outs]` and residual f32 `[rows, outs]`.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        bias: Option<&TensorDesc>,
        residual: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let kernel = match half_type("linear_half_capture", x)? {
            DType::F16 => &F16,
            _ => &BF16,
        };
        product(kernel, self.activation, [x, weight], bias, residual)
    }
}

impl Op for LinearHalfCapture {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), bias, residual] = inputs else {
            let expected = "x, weight, bias?, residual?";
            return Err(ShapeError::value("linear_half_capture", "inputs", inputs.len(), expected));
        };
        self.plan(x, weight, bias, residual)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{capture::Capture, linear_half::LinearHalf};
    use super::*;

    #[test]
    fn the_kernel_and_both_results_follow_the_type() {
        for (half, name) in
            [(DType::F16, "linear_half_capture_f16"), (DType::BF16, "linear_half_capture_bf16")]
        {
            let (x, w) = (TensorDesc::new(half, [3, 5]), TensorDesc::new(half, [7, 5]));
            let plan = LinearHalfCapture { activation: Activation::Relu }.plan(&x, &w, None, None);
            let plan = plan.expect("shapes fit");
            assert_eq!(plan.kernel.name, name);
            assert_eq!(plan.slots[4], Some(TensorDesc::f32([3, 7])));
            assert_eq!(plan.slots[5], Some(TensorDesc::new(half, [3, 7])));
        }
    }

    #[test]
    fn what_it_costs_less_than_two_launches_is_reading_y() {
        let (x, w) = (TensorDesc::new(DType::BF16, [3, 5]), TensorDesc::new(DType::BF16, [7, 5]));
        let y = TensorDesc::f32([3, 7]);
        let activation = Activation::None;
        let one = LinearHalfCapture { activation }.plan(&x, &w, None, Some(&y)).expect("shapes fit");
        let product =
            LinearHalf { activation, out: DType::F32 }.plan(&x, &w, None, Some(&y)).expect("shapes fit");
        let capture = Capture { dtype: DType::BF16 }.plan(&y, None).expect("shapes fit");
        assert_eq!(one.cost.flops, product.cost.flops);
        assert_eq!(one.cost.bytes + 4 * 3 * 7, product.cost.bytes + capture.cost.bytes);
    }

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::new(DType::F16, [3, 5]);
        let w = TensorDesc::new(DType::F16, [7, 5]);
        let text = |x: &TensorDesc, w: &TensorDesc, extra: [Option<&TensorDesc>; 2]| {
            let op = LinearHalfCapture { activation: Activation::None };
            op.plan(x, w, extra[0], extra[1]).expect_err("refused").to_string()
        };
        assert_eq!(
            text(&TensorDesc::f32([3, 5]), &w, [None; 2]),
            "linear_half_capture: `x` has type and shape F32 [3, 5], expected F16 or BF16 [rows, cols]"
        );
        assert_eq!(
            text(&TensorDesc::new(DType::BF16, [5]), &w, [None; 2]),
            "linear_half_capture: `x` has type and shape BF16 [5], expected F16 or BF16 [rows, cols]"
        );
        assert_eq!(
            text(&x, &TensorDesc::new(DType::F16, [7]), [None; 2]),
            "linear_half_capture_f16: `weight` has type and shape F16 [7], expected F16 [outs, cols]"
        );
        assert_eq!(
            text(&TensorDesc::new(DType::BF16, [3, 5]), &w, [None; 2]),
            "linear_half_capture_bf16: `weight` has type and shape F16 [7, 5], expected BF16 [7, 5] (type and \
             columns of x)"
        );
        assert_eq!(
            text(&x, &w, [Some(&TensorDesc::f32([5])), None]),
            "linear_half_capture_f16: `bias` has type and shape F32 [5], expected F32 [7] (first axis of weight)"
        );
        assert_eq!(
            text(&x, &w, [None, Some(&TensorDesc::new(DType::F16, [3, 7]))]),
            "linear_half_capture_f16: `residual` has type and shape F16 [3, 7], expected F32 [3, 7] (rows of x, first \
             axis of weight)"
        );
        let empty = TensorDesc::new(DType::F16, [65_536, 0]);
        assert_eq!(
            text(&empty, &empty, [None; 2]),
            "linear_half_capture_f16: `elements of y` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &LinearHalfCapture { activation: Activation::Gelu };
        assert_eq!(
            op.plan(&[Some(&x), Some(&w)]).expect_err("refused").to_string(),
            "linear_half_capture: `inputs` has value 2, expected x, weight, bias?, residual?"
        );
    }
}
