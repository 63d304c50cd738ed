//! References of the paged cache and its attention, against cases worked by hand.

use auscult_kernels::{
    Access, DType, HostSlot, Op, Plan, TensorDesc,
    ops::{attention_cache::AttentionCache, attention_merge::AttentionMerge, cache_write::CacheWrite},
};
use bytemuck::{Pod, cast_slice};
use half::{bf16, f16};

const NONE: u32 = u32::MAX;

/// Runs the reference of a plan over slots in binding order; what is only written holds anything.
fn run(plan: &Plan, slots: &mut [Vec<u64>]) {
    let each = plan.kernel.slots.iter().zip(&plan.slots).zip(slots);
    let mut slots: Vec<HostSlot<'_>> = each
        .map(|((slot, desc), words)| {
            let bytes =
                &mut bytemuck::cast_slice_mut(words)[..desc.as_ref().expect("none is left out").bytes()];
            if slot.access == Access::Read { HostSlot::Read(bytes) } else { HostSlot::Write(bytes) }
        })
        .collect();
    (plan.kernel.reference)(&plan.params, &mut slots);
}

/// Memory of a slot, aligned for every type.
fn memory<T: Pod>(values: &[T]) -> Vec<u64> {
    let bytes: &[u8] = cast_slice(values);
    let mut words = vec![u64::MAX; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

fn values<T: Pod>(memory: &[u64], count: usize) -> Vec<T> {
    cast_slice::<u8, T>(&cast_slice(memory)[..count * size_of::<T>()]).to_vec()
}

/// What becomes of caches `[pages, page_steps, width]` full of 100 and 200.
fn written<T: Pod>(
    op: CacheWrite,
    dtype: DType,
    cache: [usize; 3],
    full: [T; 2],
    x: &[f32],
    positions: &[u32],
    pages: &[u32],
) -> [Vec<T>; 2] {
    let rows = positions.len();
    let cache = TensorDesc::new(dtype, cache);
    let [pages_desc, positions_desc] = [vec![rows, pages.len() / rows], vec![rows]].map(TensorDesc::u32);
    let x_desc = TensorDesc::f32([rows * op.steps, x.len() / (rows * op.steps)]);
    let plan = op.plan(&x_desc, &x_desc, &positions_desc, &pages_desc, &cache, &cache).expect("shapes fit");
    let n = cache.elements();
    let mut slots = [
        memory(x),
        memory(x),
        memory(positions),
        memory(pages),
        memory(&vec![full[0]; n]),
        memory(&vec![full[1]; n]),
    ];
    run(&plan, &mut slots);
    [values(&slots[4], n), values(&slots[5], n)]
}

#[test]
fn keys_and_values_go_to_their_places() {
    // two rows of three positions; queries lie before the keys
    let op = CacheWrite { steps: 3, k_first: 1, v_first: 3 };
    let x: Vec<f32> =
        (0..6_u8).flat_map(|i| [0.0, 10.0, 11.0, 20.0, 21.0].map(|v| v + 2.0 * f32::from(i))).collect();
    // row 0: positions 1, 2, 3 of pages 2 and 0; row 1: positions 3, 4, 5, of which 4 and 5 are past its pages
    let [k, v] = written(op, DType::F32, [4, 2, 2], [100.0_f32, 200.0], &x, &[1, 3], &[2, 0, 3, 1]);
    let untouched = [100.0_f32; 2];
    let want = [
        // page 0: positions 2 and 3 of row 0
        [12.0, 13.0],
        [14.0, 15.0],
        // page 1: position 3 of row 1
        untouched,
        [16.0, 17.0],
        // page 2: position 1 of row 0
        untouched,
        [10.0, 11.0],
        untouched,
        untouched,
    ];
    assert_eq!(k, want.concat());
    let want: Vec<f32> = want.concat().iter().map(|k| if *k == 100.0 { 200.0 } else { k + 10.0 }).collect();
    assert_eq!(v, want);
}

#[test]
fn what_has_no_place_is_not_written() {
    let op = CacheWrite { steps: 2, k_first: 0, v_first: 0 };
    let x: Vec<f32> = (1..=8_u8).map(f32::from).collect();
    // no page; a page that the cache does not have; positions at the end of all numbers; a page of the row's own
    let pages = [NONE, 2, 1, 1];
    let [k, v] = written(op, DType::F32, [2, 2, 1], [100.0_f32, 200.0], &x, &[0, 0, NONE, 1], &pages);
    assert_eq!(k, [100.0, 100.0, 100.0, 7.0], "position 1 of the last row; its next lies past its page");
    assert_eq!(v, [200.0, 200.0, 200.0, 7.0]);
}

#[test]
fn halves_are_rounded_to_nearest_even() {
    // halfway between two f16: 1 + 2^-11 goes down to even, 1 + 3 * 2^-11 up; past the largest, infinity
    let x = [1.0 + 2.0_f32.powi(-11), 1.0 + 3.0 * 2.0_f32.powi(-11), 65_520.0];
    let op = CacheWrite { steps: 1, k_first: 0, v_first: 0 };
    let zero = f16::from_f32(0.0);
    let [k, v] = written(op, DType::F16, [1, 1, 3], [zero; 2], &x, &[0], &[0]);
    let want = [1.0, 1.0 + 2.0_f32.powi(-9), f32::INFINITY];
    assert_eq!(k.iter().map(|k| k.to_f32()).collect::<Vec<_>>(), want);
    assert_eq!(v, k);
    let x = [1.0 + 2.0_f32.powi(-8), 1.0 + 3.0 * 2.0_f32.powi(-8), f32::MAX];
    let zero = bf16::from_f32(0.0);
    let [k, _] = written(op, DType::BF16, [1, 1, 3], [zero; 2], &x, &[0], &[0]);
    let want = [1.0, 1.0 + 2.0_f32.powi(-6), f32::INFINITY];
    assert_eq!(k.iter().map(|k| k.to_f32()).collect::<Vec<_>>(), want);
}

/// y of queries `[rows, q_cols]` over caches `[pages, 2, width]`.
fn attended<T: Pod>(
    op: AttentionCache,
    dtype: DType,
    width: usize,
    q: &[f32],
    [k, v]: [&[T]; 2],
    pages: &[u32],
    positions: &[u32],
) -> Vec<f32> {
    let rows = positions.len();
    let cache = TensorDesc::new(dtype, [k.len() / 2 / width, 2, width]);
    let descs = [
        TensorDesc::f32([rows, q.len() / rows]),
        cache.clone(),
        cache,
        TensorDesc::u32([rows, pages.len() / rows]),
        TensorDesc::u32([rows]),
    ];
    let plan = Op::plan(&op, &descs.each_ref().map(Some)).expect("shapes fit");
    let n = plan.slots[5].as_ref().expect("a result").elements();
    let mut slots =
        [memory(q), memory(k), memory(v), memory(pages), memory(positions), memory(&vec![f32::NAN; n])];
    run(&plan, &mut slots);
    values(&slots[5], n)
}

fn merged(parts: &[f32], shape: [usize; 4]) -> Vec<f32> {
    let plan = AttentionMerge.plan(&TensorDesc::f32(shape)).expect("shapes fit");
    let n = shape[0] * shape[1] * (shape[3] - 2);
    let mut slots = [memory(parts), memory(&vec![f32::NAN; n])];
    run(&plan, &mut slots);
    values(&slots[1], n)
}

fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 1e-6 * want.abs(), "[{i}]: {got}, want {want}");
    }
}

/// Two pages of two positions, two heads of one column: scores of head 0 with query 1 are 0, ln 2, ln 4, ln 8, so weights
/// are as 1 : 2 : 4 : 8; head 1 has query 0, so all its weights are the same.
fn doubling() -> ([f32; 8], [f32; 8]) {
    let ln2 = std::f32::consts::LN_2;
    ([0.0, 5.0, ln2, -5.0, 2.0 * ln2, 9.0, 3.0 * ln2, 1.0], [1.0, 1.0, 10.0, 2.0, 100.0, 3.0, 1000.0, 6.0])
}

#[test]
fn keys_are_those_up_to_the_position() {
    let (k, v) = doubling();
    let op = AttentionCache { heads: 2, scale: 1.0, extra: 1, chunk: 4 };
    // five rows of three columns, of which the query is two
    let q = [[1.0, 0.0, f32::NAN]; 5].concat();
    let positions = [0, 1, 2, 3, NONE];
    let y = attended(op, DType::F32, 2, &q, [&k, &v], &[0, 1].repeat(5), &positions);
    let want = [
        [1.0, 1.0],
        [21.0 / 3.0, 1.5],
        [421.0 / 7.0, 2.0],
        [8421.0 / 15.0, 3.0],
        // a position past the pages sees all of them
        [8421.0 / 15.0, 3.0],
    ];
    close(&y, &want.concat());
}

#[test]
fn keys_end_before_a_page_that_is_not_there() {
    let (k, v) = doubling();
    let op = AttentionCache { heads: 2, scale: 1.0, extra: 0, chunk: 4 };
    let q = [[1.0, 0.0]; 4].concat();
    // page 2 is past the cache; a page behind one that is not there does not count; one page may be named twice
    let pages = [0, 2, NONE, 0, 1, 1, 0, 1];
    let y = attended(op, DType::F32, 2, &q, [&k, &v], &pages, &[4, 4, 3, 0]);
    let want = [
        [21.0 / 3.0, 1.5],
        // no keys
        [0.0, 0.0],
        // keys 2, 3 and 2 again: 4, 8 and 4
        [8800.0 / 16.0, 4.0],
        // no keys
        [0.0, 0.0],
    ];
    close(&y, &want.concat());
}

#[test]
fn scores_are_scaled() {
    let (k, v) = doubling();
    let op = AttentionCache { heads: 2, scale: -0.5, extra: 0, chunk: 9 };
    let y = attended(op, DType::F32, 2, &[-2.0, 0.0], [&k, &v], &[0, 1], &[2]);
    close(&y, &[21.0 / 3.0, 1.5]);
}

#[test]
fn halves_are_widened() {
    // weights 1 : e^2, values that f16 and bf16 have exactly
    let e2 = 2.0_f32.exp();
    let want = [(1.5 - 3.0 * e2) / (1.0 + e2)];
    let op = AttentionCache { heads: 1, scale: 0.5, extra: 1, chunk: 2 };
    let (k, v) = ([0.0_f32, 4.0], [1.5_f32, -3.0]);
    let (k16, v16) = (k.map(f16::from_f32), v.map(f16::from_f32));
    close(&attended(op, DType::F16, 1, &[1.0], [&k16, &v16], &[0], &[1]), &want);
    let (k16, v16) = (k.map(bf16::from_f32), v.map(bf16::from_f32));
    close(&attended(op, DType::BF16, 1, &[1.0], [&k16, &v16], &[0], &[1]), &want);
}

#[test]
fn chunks_say_what_they_found() {
    let (k, v) = doubling();
    let op = AttentionCache { heads: 2, scale: 1.0, extra: 1, chunk: 3 };
    let ln2 = std::f32::consts::LN_2;
    let parts = attended(op, DType::F32, 2, &[1.0, 0.0, 1.0, 0.0], [&k, &v], &[0, 1, 0, 1], &[3, 1]);
    let want = [
        // row 0, head 0: keys 0, 1, 2 under a maximum of ln 4, then key 3
        [421.0 / 4.0, 2.0 * ln2, 7.0 / 4.0],
        [1000.0, 3.0 * ln2, 1.0],
        // head 1
        [6.0, 0.0, 3.0],
        [6.0, 0.0, 1.0],
        // row 1: keys 0 and 1; the second chunk has none
        [21.0 / 2.0, ln2, 3.0 / 2.0],
        [0.0, f32::MIN, 0.0],
        [3.0, 0.0, 2.0],
        [0.0, f32::MIN, 0.0],
    ];
    close(&parts, &want.concat());
    close(&merged(&parts, [2, 2, 2, 3]), &[8421.0 / 15.0, 3.0, 21.0 / 3.0, 1.5]);
}

#[test]
fn chunks_are_weighed_by_their_maxima() {
    let ln3 = 3.0_f32.ln();
    let parts = [
        // two columns: (5, 7) / 2 under ln 3, (1, -1) under 0, and nothing: weights 1, 1/3
        [5.0, 7.0, ln3, 2.0],
        [1.0, -1.0, 0.0, 1.0],
        [0.0, 0.0, f32::MIN, 0.0],
        // nothing at all
        [0.0, 0.0, f32::MIN, 0.0],
        [0.0, 0.0, f32::MIN, 0.0],
        [0.0, 0.0, f32::MIN, 0.0],
    ];
    let y = merged(&parts.concat(), [1, 2, 3, 4]);
    let total = 2.0 + 1.0 / 3.0;
    close(&y, &[(5.0 + 1.0 / 3.0) / total, (7.0 - 1.0 / 3.0) / total, 0.0, 0.0]);
}
