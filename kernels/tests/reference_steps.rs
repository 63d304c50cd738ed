//! References of what is kept of single columns, against cases worked by hand.

use auscult_kernels::{HostSlot, TensorDesc, ops::capture_step::CaptureStep};
use bytemuck::{cast_slice, cast_slice_mut};

#[test]
fn capture_step_overwrites_one_column_of_each_row() {
    let plan = CaptureStep
        .plan(&TensorDesc::f32([2, 2]), &TensorDesc::u32([2]), &TensorDesc::f32([2, 3, 2]))
        .expect("shapes fit");
    let mut history: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let mut slots = [
        HostSlot::Read(cast_slice(&[-1.0_f32, -2.0, -3.0, -4.0])),
        // column 1, and column 5 % 3 = 2
        HostSlot::Read(cast_slice(&[1_u32, 5])),
        HostSlot::Write(cast_slice_mut(&mut history)),
    ];
    (plan.kernel.reference)(&plan.params, &mut slots);
    assert_eq!(history, [0.0, 1.0, -1.0, -2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, -3.0, -4.0]);
}
