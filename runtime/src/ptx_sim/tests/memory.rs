//! Loads, stores, and what is refused of them.

use super::{by_thread, launch, refuses, source};

/// Four words of shared memory, written by each thread for itself, and what a load makes of them.
fn loaded(load: &str) -> Vec<u32> {
    by_thread(
        2,
        &format!(
            ".shared .align 16 .b8 room[64]; .reg .u32 base, w0, w1; .reg .u64 wide; .reg .b16 half; .reg .f32 f0;
            mov.u32 base, room; mad.lo.u32 base, tid, 16, base;
            st.shared.v4.u32 [base], {{0x83828180, 0xfedcba98, 7, 8}};
            {load}"
        ),
    )
    .unwrap()
}

#[test]
fn widths_and_signs() {
    assert_eq!(loaded("ld.shared.u8 result, [base];"), [0x80, 0x80]);
    assert_eq!(loaded("ld.shared.s8 result, [base + 1];"), [0xffff_ff81, 0xffff_ff81]);
    assert_eq!(loaded("ld.shared.u16 result, [base + 2];"), [0x8382, 0x8382]);
    assert_eq!(loaded("ld.shared.s16 result, [base + 2];"), [0xffff_8382, 0xffff_8382]);
    assert_eq!(loaded("ld.shared.b16 half, [base]; mov.b32 result, {half, half};"), [0x8180_8180; 2]);
    assert_eq!(loaded("ld.shared.u64 wide, [base]; cvt.u32.u64 result, wide;"), [0x8382_8180; 2]);
    assert_eq!(loaded("ld.shared.s32 wide, [base]; mov.b64 {_, result}, wide;"), [0xffff_ffff; 2]);
    assert_eq!(loaded("ld.shared.u32 wide, [base]; mov.b64 {_, result}, wide;"), [0, 0]);
    assert_eq!(loaded("ld.shared.f32 f0, [base + 4]; mov.b32 result, f0;"), [0xfedc_ba98; 2]);
    assert_eq!(loaded("ld.shared.v2.u32 {w0, w1}, [base + 8]; mad.lo.u32 result, w1, 10, w0;"), [87; 2]);
    assert_eq!(loaded("ld.shared.v4.u32 {_, w0, _, w1}, [base]; sub.u32 result, w0, w1;"), [0xfedc_ba90; 2]);
    assert_eq!(
        loaded("ld.shared.v4.u8 {_, w0, _, w1}, [base]; mad.lo.u32 result, w1, 256, w0;"),
        [0x8381; 2]
    );
    assert_eq!(loaded("st.shared.u8 [base + 1], 0x1ff; ld.shared.u32 result, [base];"), [0x8382_ff80; 2]);
    assert_eq!(
        loaded("mov.u32 w0, 0x12345; st.shared.u16 [base], w0; ld.shared.u32 result, [base];"),
        [0x8382_2345; 2]
    );
    // the register of the address may be the one that is written
    assert_eq!(loaded("ld.shared.u32 base, [base + 8]; mov.u32 result, base;"), [7, 7]);
}

#[test]
fn addresses_of_all_spaces() {
    let generic = ".shared .align 4 .b32 word; .reg .u64 there; .reg .u32 local;
        mov.u64 there, word; cvta.shared.u64 there, there;
        st.u32 [there], 77; cvta.to.shared.u64 there, there; ld.shared.u32 local, [there];
        ld.shared.u32 result, [word]; add.u32 result, result, local;";
    assert_eq!(by_thread(1, generic).unwrap(), [154]);
    let global = ".reg .u64 there; ld.param.u64 there, [out]; cvta.to.global.u64 there, there;
        mad.wide.u32 there, tid, 4, there; st.global.u32 [there], tid; ld.u32 result, [there + 0];
        add.u32 result, result, 1;";
    assert_eq!(by_thread(3, global).unwrap(), [1, 2, 3]);
    let params = ".reg .u32 a, b, c, e; .reg .u64 block; ld.param.v2.u32 {a, b}, [params]; ld.param.u16 c, [params + 8];
        mov.u64 block, params; ld.param.u32 e, [block + 12];
        mad.lo.u32 result, a, 10, b; mad.lo.u32 result, result, 10, c; mad.lo.u32 result, result, 10, e;";
    assert_eq!(by_thread(1, params).unwrap(), [1234]);
}

#[test]
fn dynamic_shared_memory_lies_behind_what_is_declared() {
    let text =
        ".shared .align 4 .b8 fixed[12]; .reg .u64 p; .reg .u32 a, b, n, result; ld.param.u64 p, [out];
        mov.u32 a, dynamic; mov.u32 b, fixed; mov.u32 n, %dynamic_smem_size;
        and.b32 result, a, 127; sub.u32 a, a, b; add.u32 result, result, n;
        st.global.u32 [p], result; ret;";
    let text = source(1, text).replace(".visible", ".extern .shared .align 128 .b8 dynamic[];\n.visible");
    assert_eq!(launch(&text, 1, 1).unwrap(), [1024]);
    // no variable is better aligned than it asks for
    let text = ".shared .align 16 .b8 room[12]; mov.u32 result, room; and.b32 result, result, 31;";
    assert_eq!(by_thread(1, text).unwrap(), [16]);
}

#[test]
fn wrong_accesses_are_refused() {
    let refused =
        |body: &str, parts: &[&str]| refuses(by_thread(32, &format!("mov.u32 result, 0;\n{body}")), parts);
    refused(
        ".reg .u64 p; ld.param.u64 p, [out]; mad.wide.u32 p, tid, 4, p; st.global.u32 [p + 64], tid;",
        &["`st.global.u32 [p + 64], tid`", "thread 16", "out of bounds", "`out`"],
    );
    refused(".reg .u64 p; mov.u64 p, 0; ld.global.u32 result, [p];", &["out of bounds", "null", "thread 0"]);
    refused(
        ".reg .u64 p; ld.param.u64 p, [out]; ld.global.u32 result, [p + 2];",
        &["misaligned", "block [0, 0, 0]"],
    );
    refused(".shared .b32 word; ld.shared.u32 result, [word];", &["never written"]);
    refused(".shared .b32 word; ld.shared.u32 result, [word + 4096];", &["out of bounds"]);
    refused(".reg .u32 never; add.u32 result, never, 1;", &["undefined register", "`never`", "thread 0"]);
    refused(
        ".reg .u32 some; .reg .pred p; setp.lt.u32 p, tid, 7; @p mov.u32 some, 1; add.u32 result, some, 1;",
        &["undefined register", "`some`", "thread 7"],
    );
    refused(".reg .pred never; @never mov.u32 result, 1;", &["undefined register", "guard `never`"]);
    refused("trap;", &["trapped"]);
}

#[test]
fn lanes_that_share_a_word_are_refused() {
    refuses(
        by_thread(32, ".shared .b32 word; st.shared.u32 [word], tid; mov.u32 result, 0;"),
        &["race in shared memory"],
    );
    refuses(
        by_thread(
            64,
            ".shared .align 4 .b8 room[256]; .reg .u32 at_word, other; mov.u32 at_word, room; mad.lo.u32 other, tid, 4, at_word;
            st.shared.u32 [other], tid; xor.b32 other, tid, 32; mad.lo.u32 other, other, 4, at_word;
            ld.shared.u32 result, [other];",
        ),
        &["never written"],
    );
    let ordered = ".shared .align 4 .b8 room[256]; .reg .u32 at_word, other; mov.u32 at_word, room;
        mad.lo.u32 other, tid, 4, at_word; st.shared.u32 [other], tid; bar.sync 0;
        xor.b32 other, tid, 32; mad.lo.u32 other, other, 4, at_word; ld.shared.u32 result, [other];";
    let want: Vec<u32> = (0..64).map(|t| t ^ 32).collect();
    assert_eq!(by_thread(64, ordered).unwrap(), want);
    // warp 1 reads what warp 0 wrote before, as it happens
    let body = ".shared .align 4 .b8 room[128]; .reg .u32 at_word; .reg .pred first; mov.u32 at_word, room;
        and.b32 result, tid, 31; mad.lo.u32 at_word, result, 4, at_word; setp.lt.u32 first, tid, 32;
        @first st.shared.u32 [at_word], tid; bar.warp.sync -1; @!first ld.shared.u32 result, [at_word];";
    refuses(by_thread(64, body), &["race in shared memory", "thread 32"]);
}
