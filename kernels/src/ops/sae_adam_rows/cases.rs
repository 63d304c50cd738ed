use super::{Length, SaeAdamRows};
use crate::ops::adam::{Adam, RATES};
use crate::ops::sae_feature_sums::SUMS;
use crate::ops::sae_group::{Grouped, SaeGroup, grouped};
use crate::{Case, Fill, TensorDesc, Tolerance};

/// A batch, and what is moved by it.
struct Setup {
    group: SaeGroup,
    width: usize,
    /// Rows of inputs are those of both tables of entries, or of one.
    both: bool,
    beta1: f64,
    length: Length,
    why: &'static str,
}

fn setups() -> Vec<Setup> {
    let group = |features, rows, k, aux_k| SaeGroup { features, rows, k, aux_k };
    let setup = |group, width, why| Setup {
        group,
        width,
        both: group.aux_k > 0,
        beta1: 0.0,
        length: Length::Any,
        why,
    };
    vec![
        setup(group(5, 0, 3, 0), 7, "no rows: nothing moves"),
        setup(group(1, 1, 1, 0), 1, "smallest"),
        setup(group(61, 37, 11, 7), 65, "two tables, one column past a workgroup"),
        Setup { both: false, ..setup(group(60, 37, 11, 7), 33, "two tables of the same rows") },
        Setup { beta1: 0.9, ..setup(group(59, 37, 11, 0), 66, "both moments") },
        Setup { length: Length::Unit, ..setup(group(62, 5, 3, 0), 100, "rows of length 1, few of them") },
        Setup {
            length: Length::Unit,
            beta1: 0.5,
            ..setup(group(300, 129, 270, 0), 20, "rows of length 1, both moments, most features in most rows")
        },
        Setup {
            length: Length::Unit,
            ..setup(group(32_768, 64, 100, 0), 1024, "a batch of 64 on MusicGen-small, 32,768 features")
        },
    ]
}

pub(super) fn cases() -> Vec<Case> {
    setups().iter().map(case).collect()
}

fn case(setup: &Setup) -> Case {
    let &Setup { group, width, both, beta1, length, why } = setup;
    let (features, entries) = (group.features, group.entries());
    let Grouped { starts, order, .. } = grouped(why, group);
    let adam = Adam { beta1, beta2: 0.999, eps: 1e-8 };
    let plan = SaeAdamRows { adam, length }.plan([
        &TensorDesc::f32([features, width]),
        &TensorDesc::f32([features, adam.moments(), width]),
        &TensorDesc::u32([features + 1]),
        &TensorDesc::u32([entries, 2]),
        &TensorDesc::f32([entries]),
        &TensorDesc::f32([if both { 2 } else { 1 } * group.rows, width]),
        &TensorDesc::f32([features, SUMS]),
        &TensorDesc::f32([RATES]),
    ]);
    Case {
        why,
        plan: plan.expect("a case's shapes fit"),
        fill: vec![
            ("starts", Fill::Words(starts)),
            ("order", Fill::Words(order)),
            // a second moment is never negative; a first one of such values is as good as any
            ("moments", Fill::Between(0.01, 1.0)),
            // steps, of which the third column tells, are whole numbers, but need not be
            ("sums", Fill::Between(1.0, 900.0)),
            ("rates", Fill::Between(0.25, 0.75)),
        ],
        tolerance: Tolerance {
            abs: 1e-4,
            rel: 4e-6,
            why: "m / sqrt(v), at most 40, of a gradient of up to 129 products in f32 and a power of e of up to 1 of an exponent \
                  within 2 ulp, times a rate below 1",
        },
    }
}
