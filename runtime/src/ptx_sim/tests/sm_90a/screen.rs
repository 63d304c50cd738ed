//! The screen's form for sm_90a, sound and with one fault each: stages, lists, their cuts; and both forms over parts of features.

use super::form::{DEVICE, Form};
use super::harness::Planted;
use crate::selftest::{self, POISON, compare};
use crate::{Backend, Contents, PtxSim};
use auscult_kernels::ops::sae_encode::Params;
use auscult_kernels::ops::sae_screen::{INFO, SaeScreen};
use auscult_kernels::{Access, Case, DType, Fill, KernelInfo, Slot, TensorDesc, Tolerance};
use std::mem::offset_of;

/// One block, which goes through two tiles of rows, of three tiles of features each, of three slices each: the four stages go round
/// more than four times.
/// All sums are far below 0, which features and rows past the end would surpass; they are exact, and so is what is wanted.
fn case() -> Case {
    let [x, weight] = [[140, 136], [700, 136]].map(|shape| TensorDesc::new(DType::BF16, shape));
    Case {
        why: "two tiles of rows of one block",
        plan: SaeScreen { k: 20 }.plan(&x, &weight, &TensorDesc::f32([700])).unwrap(),
        fill: vec![
            ("x", Fill::Multiples(0.125, 8)),
            ("weight", Fill::Multiples(0.125, 8)),
            ("bias", Fill::Between(-300.0, -200.0)),
        ],
        tolerance: Tolerance { why: "one rounding, of an exact sum", ..Tolerance::EXACT },
    }
}

#[test]
fn faults_planted_in_the_screen_are_found() {
    const UNFINISHED: &str = "asynchronous result used before its wait";
    const RACE: &str = "race in shared memory";
    let planted: &[Planted] = &[
        ("no fence after mbarrier.init", "    fence.mbarrier_init.release.cluster;\n", "", RACE),
        (
            "no barrier after mbarrier.init",
            "barriers_made:\n    bar.sync        0;\n",
            "barriers_made:\n",
            RACE,
        ),
        (
            "no wait for a stage to be filled",
            "    @!ready bra     await_full;\n",
            "",
            "read of memory never written",
        ),
        ("copies do not wait for a stage to be left", "    @!ready bra     await_empty;\n", "", UNFINISHED),
        (
            "copies wait for the other parity",
            "xor.b32         wait_parity, parity, 1;",
            "mov.u32         wait_parity, parity;",
            "deadlock",
        ),
        ("half of a stage's bytes are expected", "[full_at], 49152;", "[full_at], 24576;", UNFINISHED),
        ("too many bytes of a stage are expected", "[full_at], 49152;", "[full_at], 49168;", "deadlock"),
        (
            "a stage that is not left",
            "    @leads mbarrier.arrive.shared.b64 _, [previous];\n",
            "",
            "deadlock",
        ),
        ("a stage counts as left by one warpgroup", "[base + 200736], 8;", "[base + 200736], 4;", "deadlock"),
        (
            "weights between swizzles",
            "add.u32         weight_at, x_at, 16384;",
            "add.u32         weight_at, x_at, 16512;",
            "misaligned: tile at",
        ),
        ("no wgmma.fence", "    wgmma.fence.sync.aligned;\n", "", "no `wgmma.fence` came after that"),
        (
            "a stage left with its product under way",
            "wgmma.wait_group.sync.aligned 1;",
            "wgmma.wait_group.sync.aligned 2;",
            RACE,
        ),
        ("sums used with their product under way", "    wgmma.wait_group.sync.aligned 0;\n", "", UNFINISHED),
        (
            "first sums added to",
            "setp.ne.u32     accumulate, column_block, 0;",
            "setp.eq.u32     accumulate, column_block, 0;",
            "undefined register: accumulator 0",
        ),
        (
            "rows of the other warpgroup",
            "mad.lo.u32 x_at, group, 8192, weight_at;",
            "mad.lo.u32 x_at, group, 0, weight_at;",
            "results: ",
        ),
        ("no barrier behind the bias", "    bar.sync        bar_id, 128;\n", "", RACE),
        ("one place for every tile's bias", " xor.b32 bias_odd, bias_odd, 1024;", "", RACE),
        (
            "the last tile's features past the end",
            "setp.gtu.and.f32 above0, v0, least0, inside0;",
            "setp.gtu.f32 above0, v0, least0;",
            "results: ",
        ),
        (
            "features of the tile behind",
            "not.b32         turned, turned;",
            "neg.s32         turned, turned;",
            "results: ",
        ),
        (
            "a bar above the bound",
            "@mine mov.f32   least0, bar;\n    @!",
            "@mine add.f32   least0, bar, 8.0;\n    @!",
            "results: ",
        ),
        (
            "a cut that keeps fewer than k",
            "setp.ge.u32     more, found, k;",
            "setp.ge.u32     more, found, 15;",
            "results: ",
        ),
        ("kept ones that are not counted", "add.u32 j, kept, 3;", "add.u32 j, kept, 0;", "results: "),
        (
            "lists longer than the workspace has them",
            "add.u32 places, places, 80;",
            "add.u32 places, places, 200;",
            "out of bounds",
        ),
    ];
    Form { kernel: &INFO, folder: "sae_screen", case: case() }.faults(planted);
}

/// The kernel with its outputs as inputs too: of slots that are only written the interpreter forgets what was there.
fn going_on() -> &'static KernelInfo {
    let slot = |slot: &Slot| match slot.access {
        Access::Write => Slot::update(slot.name, slot.dtype),
        Access::Read | Access::ReadWrite => *slot,
    };
    let slots: Vec<Slot> = INFO.slots.iter().map(slot).collect();
    Box::leak(Box::new(KernelInfo {
        name: INFO.name,
        slots: slots.leak(),
        fields: INFO.fields,
        params_size: INFO.params_size,
        wgsl: INFO.wgsl,
        ptx: INFO.ptx,
        reference: INFO.reference,
        cpu: INFO.cpu,
        cases: INFO.cases,
    }))
}

/// Parts of the features, the first of fewer than k, are the same as all at once, in every form.
#[test]
fn a_screen_goes_on_from_the_part_before() {
    const PARTS: [(usize, usize); 3] = [(0, 64), (64, 256), (320, 380)];
    let (rows, width, features, k) = (130, 16, 700, 80);
    let x = TensorDesc::new(DType::BF16, [rows, width]);
    let plan = |features| {
        let weight = TensorDesc::new(DType::BF16, [features, width]);
        // a part may have fewer features than places
        let mut plan =
            SaeScreen { k: k.min(features) }.plan(&x, &weight, &TensorDesc::f32([features])).unwrap();
        plan.slots[3] = Some(TensorDesc::u32([rows, k]));
        plan.slots[4] = Some(TensorDesc::f32([rows, k]));
        plan
    };
    let not_a_number = |i: usize| if i == 500 { f32::NAN } else { (i % 50) as f32 / 64.0 };
    let case = Case {
        why: "parts of features",
        plan: plan(features),
        fill: vec![
            ("x", Fill::Multiples(0.125, 8)),
            ("weight", Fill::Multiples(0.125, 8)),
            ("bias", Fill::Words((0..features).map(|i| not_a_number(i).to_bits()).collect())),
        ],
        tolerance: Tolerance { why: "sums without rounding", ..Tolerance::EXACT },
    };
    let whole = case.plan.pieces(usize::MAX, 256).unwrap();
    let want = selftest::run_reference(&case, &whole, POISON).unwrap();
    let kernel = going_on();
    for form in kernel.ptx {
        let sim = PtxSim::with_device(DEVICE).unwrap().only(form.entry);
        let buffer = |bytes: usize| sim.alloc(Contents::Undefined(bytes)).unwrap();
        let filled = |slot: usize| {
            let bytes = case.input(slot);
            let buffer = buffer(bytes.len());
            sim.upload(&buffer.span(), &bytes).unwrap();
            buffer.span()
        };
        let [x, weight, bias] = [0, 1, 2].map(filled);
        let [indices, values] = [(); 2].map(|()| buffer(4 * rows * k).span());
        for (first, count) in PARTS {
            let mut part = plan(count);
            part.kernel = kernel;
            let mut field = |at: usize, value: usize| {
                part.params[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_ne_bytes());
            };
            field(offset_of!(Params, first_feature), first);
            field(offset_of!(Params, k), k);
            let weight = weight.slice(2 * width * first, 2 * width * count).unwrap();
            let bias = bias.slice(4 * first, 4 * count).unwrap();
            let slots = [&x, &weight, &bias, &indices, &values].map(|span| Some(span.clone()));
            sim.dispatch(&part, &slots).unwrap();
        }
        for ((slot, want), span) in want.iter().zip([&indices, &values]) {
            let got = sim.download(span).unwrap();
            let desc = case.plan.slots[*slot].as_ref().unwrap();
            compare(desc, &got, want, &case.tolerance)
                .unwrap_or_else(|message| panic!("{}: {message}", form.entry));
        }
    }
}
