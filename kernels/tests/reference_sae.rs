//! The encoder and the decoder of sparse autoencoders against cases worked by hand, in every form on the host.

use auscult_kernels::{
    DType, HostFn, HostSlot, KernelInfo, TensorDesc,
    ops::{
        sae_decode::{self, SaeDecode},
        sae_encode::{self, SaeEncode, SaeEncodeParts},
        sae_merge::{self, SaeMerge},
        sae_rescore::{self, SaeRescore},
        sae_screen::{self, SaeScreen},
    },
};
use bytemuck::{cast_slice, cast_slice_mut};

fn forms(kernel: &KernelInfo) -> [HostFn; 2] {
    [kernel.reference, kernel.cpu.expect("a fast form")]
}

/// Encodes rows of two columns.
fn encode(host: HostFn, k: usize, x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let rows = x.len() / 2;
    let shapes =
        [TensorDesc::f32([rows, 2]), TensorDesc::f32([bias.len(), 2]), TensorDesc::f32([bias.len()])];
    let plan = SaeEncode { k }.plan(&shapes[0], &shapes[1], &shapes[2]).expect("shapes fit");
    let (mut indices, mut values) = (vec![u32::MAX; rows * k], vec![f32::NAN; rows * k]);
    host(
        &plan.params,
        &mut [
            HostSlot::Read(cast_slice(x)),
            HostSlot::Read(cast_slice(weight)),
            HostSlot::Read(cast_slice(bias)),
            HostSlot::Write(cast_slice_mut(&mut indices)),
            HostSlot::Write(cast_slice_mut(&mut values)),
        ],
    );
    (indices, values)
}

const WEIGHT: [f32; 12] = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0];
const BIAS: [f32; 6] = [0.0, 0.0, -1.0, 0.0, 0.5, 0.25];

#[test]
fn the_largest_come_first_and_equals_by_index() {
    for host in forms(&sae_encode::INFO) {
        // of [2, 3]: 2, 3, 4, 2, -1.5, 0.25; of [-1, -1]: -1, -1, -3, -1, 1.5, 0.25
        let (indices, values) = encode(host, 3, &[2.0, 3.0, -1.0, -1.0], &WEIGHT, &BIAS);
        assert_eq!(indices, [2, 1, 0, 4, 5, 0]);
        assert_eq!(values, [4.0, 3.0, 2.0, 1.5, 0.25, 0.0]);
        let (indices, values) = encode(host, 6, &[2.0, 3.0], &WEIGHT, &BIAS);
        assert_eq!(indices, [2, 1, 0, 3, 5, 0]);
        assert_eq!(values, [4.0, 3.0, 2.0, 2.0, 0.25, 0.0]);
    }
}

#[test]
fn what_is_not_a_number_spoils_its_row_alone() {
    for host in forms(&sae_encode::INFO) {
        let (indices, values) = encode(host, 2, &[f32::NAN, 1.0, 2.0, 3.0], &WEIGHT, &BIAS);
        assert_eq!(indices, [0, 0, 2, 1]);
        assert!(values[0].is_nan() && values[1].is_nan(), "{values:?}");
        assert_eq!(values[2..], [4.0, 3.0]);
    }
}

#[test]
fn parts_have_the_best_of_their_own_features_which_are_merged() {
    // feature f is f % 7 times the first column, so that equals are in all three parts
    let weight: Vec<f32> = (0..150).flat_map(|f| [(f % 7) as f32, 0.0]).collect();
    let shapes = [TensorDesc::f32([2, 2]), TensorDesc::f32([150, 2]), TensorDesc::f32([150])];
    let plan =
        SaeEncodeParts { k: 3, parts: 3 }.plan(&shapes[0], &shapes[1], &shapes[2]).expect("shapes fit");
    for host in forms(&sae_encode::INFO) {
        let (mut found, mut values) = ([9_u32; 18], [-1.0_f32; 18]);
        let read =
            [cast_slice(&[2.0_f32, 0.0, f32::NAN, 0.0]), cast_slice(&weight), cast_slice(&[0.0_f32; 150])];
        let written = [cast_slice_mut(&mut found), cast_slice_mut(&mut values)].map(HostSlot::Write);
        host(&plan.params, &mut read.map(HostSlot::Read).into_iter().chain(written).collect::<Vec<_>>());
        // features 0 to 63, 64 to 127, 128 on
        assert_eq!(found[..9], [6, 13, 20, 69, 76, 83, 132, 139, 146]);
        assert_eq!(values[..9], [12.0; 9]);
        assert!(found[9..] == [0; 9] && values[9..].iter().all(|v| v.is_nan()), "{values:?}");

        let plan =
            SaeMerge.plan(&TensorDesc::u32([2, 3, 3]), &TensorDesc::f32([2, 3, 3])).expect("shapes fit");
        let (mut indices, mut merged) = ([9_u32; 6], [-1.0_f32; 6]);
        let read = [cast_slice(&found), cast_slice(&values)].map(HostSlot::Read);
        let written = [cast_slice_mut(&mut indices), cast_slice_mut(&mut merged)].map(HostSlot::Write);
        let mut slots: Vec<_> = read.into_iter().chain(written).collect();
        (sae_merge::INFO.reference)(&plan.params, &mut slots);
        drop(slots);
        assert_eq!(indices, [6, 13, 20, 0, 0, 0]);
        assert_eq!(merged[..3], [12.0; 3]);
        assert!(merged[3..].iter().all(|v| v.is_nan()), "{merged:?}");
    }
}

/// Screens rows of two columns.
fn screen(host: HostFn, k: usize, x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let narrow =
        |values: &[f32]| -> Vec<half::bf16> { values.iter().map(|&v| half::bf16::from_f32(v)).collect() };
    let (rows, x, weight) = (x.len() / 2, narrow(x), narrow(weight));
    let [x_desc, w_desc] = [rows, bias.len()].map(|rows| TensorDesc::new(DType::BF16, [rows, 2]));
    let plan = SaeScreen { k }.plan(&x_desc, &w_desc, &TensorDesc::f32([bias.len()])).expect("shapes fit");
    let (mut indices, mut values) = (vec![9; rows * k], vec![f32::NAN; rows * k]);
    let read = [cast_slice(&x), cast_slice(&weight), cast_slice(bias)].map(HostSlot::Read);
    let written = [cast_slice_mut(&mut indices), cast_slice_mut(&mut values)].map(HostSlot::Write);
    host(&plan.params, &mut read.into_iter().chain(written).collect::<Vec<_>>());
    (indices, values)
}

#[test]
fn screens_keep_the_largest_of_either_sign() {
    for host in forms(&sae_screen::INFO) {
        // of [2, 3]: 2, 3, 4, 2, -1.5, 0.25; of [-1, -1]: -1, -1, -3, -1, 1.5, 0.25
        let (indices, values) = screen(host, 5, &[2.0, 3.0, -1.0, -1.0], &WEIGHT, &BIAS);
        assert_eq!(indices, [2, 1, 0, 3, 5, 4, 5, 0, 1, 3]);
        assert_eq!(values, [4.0, 3.0, 2.0, 2.0, 0.25, 1.5, 0.25, -1.0, -1.0, -1.0]);
    }
}

#[test]
fn screens_multiply_what_is_rounded_and_add_in_full() {
    for host in forms(&sae_screen::INFO) {
        // 257 is 256 in bf16, 259 is 260; a bias keeps its bits
        let (indices, values) = screen(host, 2, &[257.0, 259.0], &[1.0, 0.0, 0.0, 1.0], &[0.0009765625, 0.5]);
        assert_eq!((indices, values), (vec![1, 0], vec![260.5, 256.0 + 1.0 / 1024.0]));
    }
}

#[test]
fn screens_put_what_is_no_number_first_and_infinity_below_nowhere() {
    for host in forms(&sae_screen::INFO) {
        let bias = [1.0, f32::NEG_INFINITY, 2.0, f32::NAN];
        let (indices, values) = screen(host, 4, &[0.0, 0.0], &[1.0; 8], &bias);
        assert_eq!(indices, [3, 2, 0, u32::MAX]);
        assert!(values[0].is_nan(), "{values:?}");
        assert_eq!(values[1..], [2.0, 1.0, f32::NEG_INFINITY]);
    }
}

/// Of rows of two columns the best of their candidates; products are off by a tenth of a column, of features times their scale.
fn rescore(
    host: HostFn,
    k: usize,
    x: &[f32],
    candidates: &[u32],
    scores: &[f32],
    scales: [f32; 6],
) -> (Vec<u32>, Vec<f32>) {
    let rows = x.len() / 2;
    let list = [rows, candidates.len() / rows];
    let [x_desc, weight, scored] = [[rows, 2], [6, 2], list].map(TensorDesc::f32);
    let (bias, errors, found) = (TensorDesc::f32([6]), TensorDesc::f32([8]), TensorDesc::u32(list));
    let plan = SaeRescore { k }.plan(&x_desc, &weight, &bias, &errors, &found, &scored).expect("shapes fit");
    let errors = [&[0.1; 2][..], &scales].concat();
    let (mut indices, mut values) = (vec![9_u32; rows * k], vec![-1.0_f32; rows * k]);
    let read = [cast_slice(x), cast_slice(&WEIGHT), cast_slice(&BIAS), cast_slice(&errors)].into_iter();
    let read = read.chain([cast_slice(candidates), cast_slice(scores)]).map(HostSlot::Read);
    let written = [cast_slice_mut(&mut indices), cast_slice_mut(&mut values)].map(HostSlot::Write);
    host(&plan.params, &mut read.chain(written).collect::<Vec<_>>());
    (indices, values)
}

#[test]
fn near_ties_are_computed_and_the_best_kept() {
    // of [2, 3]: 2, 3, 4, 2, -1.5, 0.25; of [-1, NaN] nothing is a number
    let x = [2.0, 3.0, 2.0, 3.0, -1.0, f32::NAN];
    let candidates = [[2, 1, 3, 0, 5], [2, 1, 3, 4, u32::MAX], [2, 1, 3, 0, 5]].concat();
    // what is 0.72 from the third score is near: the first row is settled without its first and last; the second has no other that may
    // be near; a row that is no number is none
    let scores = [[4.5, 2.75, 2.25, 1.75, 0.0], [3.0, 2.8, 1.9, -1.4, f32::NEG_INFINITY], [f32::NAN; 5]];
    for host in forms(&sae_rescore::INFO) {
        let (indices, values) = rescore(host, 3, &x, &candidates, &scores.concat(), [1.0; 6]);
        assert_eq!((&indices[..3], &values[..3]), (&[2, 1, 0][..], &[4.5, 3.0, 2.0][..]));
        assert_eq!((&indices[3..6], &values[3..6]), (&[2, 1, 3][..], &[3.0, 2.8, 2.0][..]));
        assert!(indices[6..] == [0; 3] && values[6..].iter().all(|v| v.is_nan()), "{values:?}");
    }
}

#[test]
fn near_ties_tell_how_far_scores_are_off() {
    let x = [2.0, 3.0];
    for host in forms(&sae_rescore::INFO) {
        // 3.5 and 3.2 are near the third score, of which 3.5 is 1.5 too much: so 2.3 may be too little by as much, and 9 is not
        let scores = |last| [9.0, 3.5, 3.2, 2.3, last];
        let found = rescore(host, 3, &x, &[4, 0, 1, 2, 5], &scores(-2.0), [1.0; 6]);
        assert_eq!(found, (vec![4, 2, 1], vec![9.0, 4.0, 3.0]));
        // so are features that are no candidates, behind a last one of 0: all six are computed
        let found = rescore(host, 3, &x, &[4, 0, 1, 2, 5], &scores(0.0), [1.0; 6]);
        assert_eq!(found, (vec![2, 1, 0], vec![4.0, 3.0, 2.0]));
    }
}

#[test]
fn features_of_a_scale_are_near_from_further_off() {
    let scores = [9.0, 3.1, 2.05, 1.9, 0.0];
    let mut scales = [1.0; 6];
    for host in forms(&sae_rescore::INFO) {
        scales[2] = 1.0;
        let found = rescore(host, 2, &[2.0, 3.0], &[4, 1, 0, 2, 5], &scores, scales);
        assert_eq!(found, (vec![4, 1], vec![9.0, 3.0]));
        // that it is 2.1 too little tells nothing of others
        scales[2] = 10.0;
        let found = rescore(host, 2, &[2.0, 3.0], &[4, 1, 0, 2, 5], &scores, scales);
        assert_eq!(found, (vec![4, 2], vec![9.0, 4.0]));
    }
}

#[test]
fn rows_that_candidates_do_not_settle_are_gone_through_whole() {
    let run = |host, x: [f32; 2], listed: [f32; 3]| {
        let (indices, values) = rescore(host, 2, &x, &[4, 5, 0], &listed, [1.0; 6]);
        ([indices[0], indices[1]], [values[0], values[1]])
    };
    let large = 2.0_f32.powi(60);
    for host in forms(&sae_rescore::INFO) {
        // the last is near; a score is not finite; the length of a row is no number to go by
        assert_eq!(run(host, [2.0, 3.0], [7.0, 0.5, 0.25]), ([2, 1], [4.0, 3.0]));
        assert_eq!(run(host, [2.0, 3.0], [7.0, 0.5, -0.25]), ([4, 5], [7.0, 0.25]));
        assert_eq!(run(host, [2.0, 3.0], [f32::INFINITY, 3.0, 2.0]), ([2, 1], [4.0, 3.0]));
        assert_eq!(run(host, [2.0, 3.0], [f32::NAN, 3.0, 2.0]), ([2, 1], [4.0, 3.0]));
        for size in [large, 1.0 / large] {
            // all near 0 but the two biases, or far beyond them
            let (want, values) = if size > 1.0 { ([0, 2], [size; 2]) } else { ([4, 5], [0.5, 0.25]) };
            assert_eq!(run(host, [size, 0.0], [f32::MAX, 1.0, -1.0]), (want, values));
        }
        // zeros have a length: nothing but equals of the second is near it
        assert_eq!(run(host, [0.0, 0.0], [7.0, 0.25, 0.2]), ([4, 5], [7.0, 0.25]));
    }
}

#[test]
fn directions_are_added_up() {
    let shapes = (TensorDesc::u32([2, 3]), TensorDesc::f32([2, 3]));
    let indices = [1_u32, 0, 0, 2, 9, 1];
    let values = [2.0_f32, -1.0, 0.0, 0.5, 7.0, 1.0];
    let (w_dec, b_dec) = ([1.0_f32, 2.0, 10.0, 20.0, 4.0, 8.0], [0.5_f32, 0.25]);
    for host in forms(&sae_decode::INFO) {
        for (minus, want) in
            [(None, [19.5, 38.25, 12.5, 24.25]), (Some([1.0_f32, 2.0, 3.0, 4.0]), [18.5, 36.25, 9.5, 20.25])]
        {
            let [table, bias, rows] = [vec![3, 2], vec![2], vec![2, 2]].map(TensorDesc::f32);
            let plan = SaeDecode
                .plan(&shapes.0, &shapes.1, &table, &bias, minus.map(|_| rows).as_ref())
                .expect("shapes fit");
            let mut y = [f32::NAN; 4];
            let minus = minus.as_ref().map_or(&[][..], |m| cast_slice(m));
            let mut slots = [
                HostSlot::Read(cast_slice(&indices)),
                HostSlot::Read(cast_slice(&values)),
                HostSlot::Read(cast_slice(&w_dec)),
                HostSlot::Read(cast_slice(&b_dec)),
                HostSlot::Read(minus),
                HostSlot::Write(cast_slice_mut(&mut y)),
            ];
            host(&plan.params, &mut slots);
            assert_eq!(y, want);
        }
    }
}
