//! What the parser takes, and what it refuses with which words.

use super::{by_thread, launch, refuses, source};
use crate::ptx_sim::program::Program;

#[test]
fn layouts_that_ptx_allows() {
    let body = "/* a comment
        of two lines */ .reg .u32 a<3>, longer; .reg .u32 %r<12>; // and another
        mov.u32 a0, 1; mov.u32 a1, 2; mov.u32
            a2,
            3; mov.u32 %r11, 40; mov.u32 longer, 0;
        { .reg .u32 a0; mov.u32 a0, 100; { mov.u32 longer, a0; } }
        .pragma \"nounroll\";
        mad.lo.u32 result, a2, a1, %r11; add.u32 result, result, a0; add.u32 result, result, longer;";
    assert_eq!(by_thread(1, body).unwrap(), [147]);
}

#[test]
fn names_with_numbers_stand_beside_plain_ones() {
    let body = ".reg .u32 value, value<4>, v1x<2>; mov.u32 value, 1; mov.u32 value3, 20; mov.u32 v1x1, 300;
        add.u32 result, value, value3; add.u32 result, result, v1x1;";
    assert_eq!(by_thread(1, body).unwrap(), [321]);
}

#[test]
fn modules_declare_shared_memory() {
    let text = source(
        1,
        ".reg .u64 p; .reg .u32 v; ld.param.u64 p, [out]; st.shared.u32 [room + 4], 9;
        ld.shared.u32 v, [room + 4]; st.global.u32 [p], v;",
    );
    let text = text.replace(".visible", ".shared .align 8 .b32 room[2];\n.visible");
    assert_eq!(launch(&text, 1, 1).unwrap(), [9]);
}

/// Each statement, on the sixth line, is refused with a message that has the parts.
#[test]
fn faults_in_a_source_are_named_with_their_line() {
    let faults: &[(&str, &[&str])] = &[
        ("frobnicate.u32 a, a;", &["line 8", "`frobnicate.u32` is not known"]),
        ("add.quickly.u32 a, a, a;", &["line 8", "modifier .quickly"]),
        ("add.u32 a, a;", &["has 2 operands, expected 3"]),
        ("add.u32 a, a, missing;", &["`missing` is not declared"]),
        ("add.u32 a, a, %tid.x;", &["%tid.x"]),
        ("mov.u32 a, %frobs;", &["`%frobs` is not known"]),
        ("add.u32 a, a, w;", &["`w` is .u64, which does not go with .u32"]),
        ("add.f32 f, f, a;", &["`a` is .u32, which does not go with .f32"]),
        ("add.u32 f, a, a;", &["`f` is .f32"]),
        ("add.f32 f, f, 1;", &["constant", ".f32"]),
        ("mov.f32 f, 5;", &["constant", ".f32"]),
        ("mov.u32 a, 0f3f800000;", &["constant", ".u32"]),
        ("div.f32 f, f, f;", &["needs a rounding modifier"]),
        ("fma.f32 f, f, f, f;", &["needs a rounding modifier"]),
        ("mul.u32 a, a, a;", &["needs one of .lo, .hi, .wide"]),
        ("setp.lt.b32 p, a, a;", &[".lt does not go with .b32"]),
        ("and.u32 a, a, a;", &["not known"]),
        ("neg.u32 a, a;", &["not known"]),
        ("ld.global.u32 f, [w];", &["`f` is .f32"]),
        ("ld.global.f32 a, [w];", &["`a` is .u32"]),
        ("ld.global.u32 a, [a];", &["another state space"]),
        ("ld.shared.u32 a, [f];", &["address in a register of .f32"]),
        ("ld.shared.nc.u32 a, [a];", &[".nc goes with .global"]),
        ("ld.global.v4.u64 {w, w, w, w}, [w];", &["32 bytes at once"]),
        ("ld.global.v2.u32 {a}, [w];", &["1 values, expected 2"]),
        ("ld.relaxed.global.u32 a, [w];", &["needs a scope"]),
        ("ld.param.u32 a, [params + 16];", &["within no parameter"]),
        ("ld.param.u32 a, [params + 2];", &["multiple of 4"]),
        ("st.param.u32 [params], a;", &["not known"]),
        ("bra nowhere;", &["no label `nowhere`"]),
        ("{ inner: } bra inner;", &["no label `inner`"]),
        ("bar.sync 16;", &["barrier 16"]),
        ("bar.sync 0, 33;", &["33 threads"]),
        ("shfl.bfly.b32 a, a, 1, 31;", &["needs one of .sync"]),
        ("cp.async.cg.shared.global [a], [w], 8;", &["8 bytes at once do not go with .cg"]),
        ("cvt.f32.u32 f, a;", &["needs a rounding modifier"]),
        ("cvt.rn.f64.f32 w, f;", &[".rn does not go"]),
        ("cvt.rn.f16.f32 a, f;", &["`a` is .u32"]),
        ("mov.b64 {a, a, a}, w;", &["3 parts"]),
        ("wgmma.fence.sync.aligned;", &["sm_90a"]),
        ("elect.sync a|p, -1;", &["needs .target sm_90"]),
        ("lop3.b32 a, a, a, a, 300;", &["table of 300"]),
        ("tanh.approx.ftz.f32 f, f;", &["modifier .ftz"]),
        ("mov.u32 a, 09;", &["`09` is no number"]),
        ("mov.u32 a 5;", &["line 8", "expected `,`"]),
        (".reg .u32 a;", &["a second `a`"]),
        (".reg .u32 out;", &["name of a parameter"]),
        (".reg .u33 b;", &["expected a type"]),
        (".reg .bf16 b;", &["no type of registers"]),
        ("setp.lt.u32 _|p, a, a;", &["writes to what is no predicate"]),
        (".extern .shared .b8 dynamic[];", &["`.extern` is not known here"]),
        (".local .b32 spill;", &["`.local` is not known here"]),
        ("@f add.u32 a, a, a;", &["`f` is no predicate"]),
        ("twice: twice: ret;", &["a second label `twice`"]),
    ];
    let mut wrong = Vec::new();
    for (statement, parts) in faults {
        let text =
            source(32, &format!(".reg .u32 a; .reg .u64 w; .reg .f32 f; .reg .pred p;\n{statement}\nret;"));
        match Program::new(&text, "k").map(|_| ()) {
            Ok(()) => wrong.push(format!("`{statement}` is taken")),
            Err(error) => {
                let said = error.to_string();
                if !said.contains("line 8") || parts.iter().any(|part| !said.contains(part)) {
                    wrong.push(format!("`{statement}`: said `{said}`, expected {parts:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn faults_around_the_body_are_refused() {
    let good = source(32, "ret;");
    let refused = |from: &str, to: &str, part: &str| refuses(launch(&good.replace(from, to), 1, 1), &[part]);
    refused(".version 7.8\n", "", "no `.version`");
    refused(".address_size 64\n", "", "no `.address_size 64`");
    refused("sm_80", "sm_52", "target `sm_52`");
    refused(".entry k", ".entry other", "no entry `k`");
    refused(".visible .entry", ".visible .func", "expected `.entry`");
    refused("params[16]", "out[16]", "a second parameter `out`");
    refused("ret;\n}", "ret;", "ends within an entry");
    refused("ret;", "/* ret;", "a comment that never ends");
    refused(".reqntid 32, 1, 1", ".reqntid 0, 1, 1", "an extent of 0");
    refused(".reqntid", ".reqfoo", "`.reqfoo` is not known");
}

#[test]
fn the_end_of_the_body_ends_the_thread() {
    assert_eq!(launch(&source(32, ".reg .u32 a; mov.u32 a, 1;"), 1, 1).unwrap(), [0]);
}
