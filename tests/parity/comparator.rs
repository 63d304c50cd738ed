//! The comparator of the self-test, judged before it judges.

use auscult_kernels::{TensorDesc, Tolerance};
use auscult_runtime::selftest::{compare, same_bits};
use libtest_mimic::{Failed, Trial};

pub fn trials() -> Vec<Trial> {
    let tolerance = Tolerance { abs: 1e-6, rel: 1e-3, why: "a test" };
    let verdict = move |got: &[f32], want: &[f32]| {
        let desc = TensorDesc::f32([got.len()]);
        compare(&desc, bytemuck::cast_slice(got), bytemuck::cast_slice(want), &tolerance)
    };
    let expect = |is: bool, what: &str| if is { Ok(()) } else { Err(Failed::from(what)) };
    vec![
        Trial::test("compare::what is within tolerance passes", move || {
            let off = verdict(&[1.0009, 0.0, -2.0], &[1.0, 9e-7, -2.0])?;
            expect((off - 9e-4).abs() < 1e-7, &format!("it did, off by {off:e}"))
        }),
        Trial::test("compare::what is beyond does not", move || {
            let message = verdict(&[1.0, 5.0, 1.0, 9.0], &[1.0, 4.0, 1.0, 7.0]).unwrap_err();
            let parts =
                ["2 of 4", "first element 1 [1]: got 5e0, want 4e0", "worst element 3 [3]: off by 2e0"];
            expect(parts.iter().all(|part| message.contains(part)), &message)
        }),
        Trial::test("compare::not a number is wrong, whichever side it is on", move || {
            let sides = [
                verdict(&[f32::NAN], &[1.0]),
                verdict(&[1.0], &[f32::NAN]),
                verdict(&[f32::INFINITY], &[1.0]),
            ];
            expect(sides.iter().all(Result::is_err), "it passed")?;
            expect(
                verdict(&[f32::INFINITY], &[f32::NEG_INFINITY]).is_err(),
                "infinities of two signs passed",
            )?;
            expect(
                verdict(&[f32::NEG_INFINITY], &[f32::NEG_INFINITY]).is_ok(),
                "equal infinities did not pass",
            )
        }),
        Trial::test("compare::poison in the reference is wrong", move || {
            let poison = f32::from_bits(u32::MAX);
            expect(verdict(&[poison], &[poison]).unwrap_err().contains("unwritten"), "it passed")
        }),
        Trial::test("compare::a tolerance that accepts anything is refused", move || {
            let desc = TensorDesc::f32([1]);
            let one = 1_f32.to_ne_bytes();
            let with = |abs, rel| compare(&desc, &one, &one, &Tolerance { abs, rel, why: "none" });
            let refused = [with(0.0, 0.02), with(0.0, f64::NAN), with(f64::INFINITY, 0.0), with(-1.0, 0.0)];
            expect(refused.iter().all(Result::is_err), "it passed")
        }),
        Trial::test("compare::bits are bits", move || {
            let desc = TensorDesc::f32([1]);
            let same = same_bits(&desc, &0_f32.to_ne_bytes(), &(-0_f32).to_ne_bytes());
            expect(same.is_err(), "zeros of two signs passed")
        }),
    ]
}
