//! A launch cut into pieces does what the whole launch does.

mod common;

use auscult_kernels::{Case, HostFn, Piece, Plan, REGISTRY, ShapeError};

/// Cuts of a case that leave no slot longer than a half, a fifth and a ninth of its longest, and that cut at all.
fn cuts(case: &Case) -> Vec<Vec<Piece>> {
    let longest = case.plan.slots.iter().flatten().map(|desc| desc.bytes()).max().unwrap_or(0);
    let cut =
        |part: usize, align: usize| case.plan.pieces((longest / part).next_multiple_of(align), align).ok();
    let all = [(2, 4), (5, 4), (9, 4), (2, 32), (5, 32), (9, 256)];
    all.into_iter().filter_map(|(part, align)| cut(part, align)).filter(|pieces| pieces.len() > 1).collect()
}

fn run_pieces(form: HostFn, case: &Case, pieces: &[Piece]) -> Vec<common::Memory> {
    let mut memory = common::slots(case);
    for piece in pieces {
        common::run(form, &case.plan, piece, &mut memory);
    }
    memory
}

#[test]
fn pieces_do_what_the_whole_does() {
    for kernel in REGISTRY {
        let mut seen = 0;
        let mut splits = false;
        for case in (kernel.cases)() {
            splits |= !case.plan.splits.is_empty();
            if case.plan.cost.flops > 20_000_000 || case.plan.cost.bytes > 20_000_000 {
                continue; // hundreds of runs of the smaller cases say as much
            }
            let whole = common::run_whole(kernel.reference, &case);
            for pieces in cuts(&case) {
                seen += 1;
                let cut = run_pieces(kernel.reference, &case, &pieces);
                for (slot, _) in case.plan.outputs() {
                    let same = cut[slot].bytes() == whole[slot].bytes();
                    assert!(same, "{} ({}): slot {slot} in {} pieces", case.plan, case.why, pieces.len());
                }
                if let Some(cpu) = kernel.cpu {
                    // a product of few rows sums in another order than one of many, so bits may differ
                    let cut = run_pieces(cpu, &case, &pieces);
                    common::compare(kernel.name, &case, case.tolerance, &cut, &whole);
                }
            }
        }
        assert!(seen > 0 || !splits, "{}: no case was cut", kernel.name);
    }
}

#[test]
fn pieces_keep_the_limit_and_the_alignment() {
    for kernel in REGISTRY {
        for case in (kernel.cases)() {
            let longest = case.plan.slots.iter().flatten().map(|desc| desc.bytes()).max().unwrap_or(0);
            for (part, align) in [(2, 4), (3, 32), (7, 256)] {
                let limit = (longest / part).next_multiple_of(align);
                let Ok(pieces) = case.plan.pieces(limit, align) else { continue };
                for (at, bytes) in pieces.iter().flat_map(|piece| piece.ranges.iter().flatten()) {
                    assert!(
                        *bytes <= limit && at % align == 0,
                        "{} ({}): {bytes} bytes at {at}",
                        case.plan,
                        case.why
                    );
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused_by_name() {
    let x = auscult_kernels::TensorDesc::f32([3, 100]);
    let row = auscult_kernels::TensorDesc::f32([100]);
    let plan = auscult_kernels::ops::add::Add { alpha: 2.0 }.plan(&x, &row);
    let refused =
        |plan: Result<Plan, ShapeError>| plan.expect("shapes fit").pieces(256, 4).expect_err("refused");
    assert_eq!(
        refused(plan).to_string(),
        "add_f32: `x` has value 400 bytes in one binding, expected at most 256 on this device; use smaller batches or \
         windows"
    );
}
