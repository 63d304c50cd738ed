//! Every fast host form agrees with its reference, on every case.

mod common;

use auscult_kernels::REGISTRY;

#[test]
fn fast_forms_agree_with_their_references() {
    let mut compared = 0;
    for kernel in REGISTRY {
        let Some(cpu) = kernel.cpu else { continue };
        for case in (kernel.cases)() {
            let want = common::run_whole(kernel.reference, &case);
            let got = common::run_whole(cpu, &case);
            common::compare(kernel.name, &case, case.tolerance, &got, &want);
            compared += 1;
        }
    }
    assert!(compared >= 10, "only {compared} cases have a fast form");
}

#[test]
fn references_write_every_element() {
    for kernel in REGISTRY {
        for case in (kernel.cases)() {
            if case.plan.cost.flops > 100_000_000 {
                continue; // the same loops as in the smaller cases, and they take long
            }
            let after = common::run_whole(kernel.reference, &case);
            let again = common::run_over(kernel.reference, &case, 0xa5);
            for (slot, _) in case.plan.outputs() {
                let same = after[slot].bytes() == again[slot].bytes();
                assert!(same, "{} ({}): slot {slot} keeps what lay there", case.plan, case.why);
            }
        }
    }
}

#[test]
fn every_kernel_has_cases_with_reasons_of_their_own() {
    for kernel in REGISTRY {
        let cases = (kernel.cases)();
        assert!(cases.len() >= 3, "{}: {} cases", kernel.name, cases.len());
        for (i, case) in cases.iter().enumerate() {
            assert!(
                std::ptr::eq(case.plan.kernel, *kernel),
                "{}: a case of {}",
                kernel.name,
                case.plan.kernel.name
            );
            assert!(
                cases[..i].iter().all(|other| other.why != case.why),
                "{}: `{}` twice",
                kernel.name,
                case.why
            );
        }
        let names = REGISTRY.iter().filter(|other| other.name == kernel.name).count();
        assert_eq!(names, 1, "{} is registered twice", kernel.name);
    }
}
