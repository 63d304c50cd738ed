//! Autoencoders and their training.

use super::job::{Job, Result, job};
use auscult_kernels::ops::{
    adam::{Adam, AdamStep, RATES},
    sae_active::SaeActive,
    sae_adam_rows::{Length, SaeAdamRows},
    sae_add_threshold::SaeAddThreshold,
    sae_batch_top_k::SaeBatchTopK,
    sae_clip::{SCHEDULE, SaeClip},
    sae_dead_bias::SaeDeadBias,
    sae_decode::SaeDecode,
    sae_encode::{SaeEncode, SaeEncodeParts},
    sae_feature_grad::SaeFeatureGrad,
    sae_feature_sums::{HISTORY, SUMS, SaeFeatureSums},
    sae_group::SaeGroup,
    sae_merge::SaeMerge,
    sae_rescore::SaeRescore,
    sae_screen::{SaeScreen, screened},
    sae_threshold_grad::SaeThresholdGrad,
    sum_rows::SumRows,
};
use auscult_kernels::{DType, Fill, TensorDesc};

/// Rows of a batch that an autoencoder is trained on, few and many; its features, and those that are active in a row.
const BATCH: [usize; 2] = [64, 4096];
const FEATURES: usize = 32_768;
const ACTIVE: usize = 100;

/// Places of a row where there is no limit of active features.
const PLACES: usize = 256;

/// Active features of the short batch, and the same turned round: where a feature's entries begin, and (entry, row) of all.
fn active() -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let places = 0..BATCH[0] * ACTIVE;
    // a prime, and so coprime to the number of features: those of a row differ
    let feature = |at: usize| (at / ACTIVE * 7919 + at % ACTIVE * 0x9e37_79b1) % FEATURES;
    let mut order: Vec<usize> = places.clone().collect();
    order.sort_by_key(|&at| (feature(at), at));
    let starts = (0..=FEATURES).map(|f| order.partition_point(|&at| feature(at) < f) as u32).collect();
    let pair = |at: usize| [at as u32, (at / ACTIVE) as u32];
    (places.map(|at| feature(at) as u32).collect(), starts, order.into_iter().flat_map(pair).collect())
}

/// Parts that the features of the short batch are encoded in.
const PARTS: usize = 256;

/// One step of the training of an autoencoder of MusicGen-small, but for the decoder; the encoder in parts, of which the
/// interpreter runs three.
pub fn training() -> Result<Vec<Job>> {
    let (indices, starts, order) = active();
    let adam = Adam { beta1: 0.0, beta2: 0.999, eps: 1e-8 };
    let places = |rows: usize| (TensorDesc::u32([rows, ACTIVE]), TensorDesc::f32([rows, ACTIVE]));
    let rows_of = |rows: usize| TensorDesc::f32([rows, 1024]);
    let pairs = |rows: usize| TensorDesc::u32([rows * ACTIVE, 2]);
    let (bounds, history) = (TensorDesc::u32([FEATURES + 1]), TensorDesc::u32([FEATURES, HISTORY]));
    let (table, sums) = (TensorDesc::f32([FEATURES, 1024]), TensorDesc::f32([FEATURES, SUMS]));
    let (bias, rates) = (TensorDesc::f32([FEATURES]), TensorDesc::f32([RATES]));
    let positive = |name| (name, Fill::Between(0.125, 1.0));
    let turned = || vec![("starts", Fill::Words(starts.clone())), ("order", Fill::Words(order.clone()))];
    let with = |fill: Vec<_>| [turned(), fill].concat();
    let logs = ("log_threshold", Fill::Between(-0.6, -0.2));
    // lists as the encoder leaves them
    let list = |at: usize| 1.0 - (at % ACTIVE) as f32 / ACTIVE as f32 + at as f32 * 1e-6;
    let lists = (0..BATCH[0] * PARTS * ACTIVE).map(|at| list(at).to_bits()).collect();
    Ok(vec![
        job(
            "64 rows, 100 of each of 3 x 128 x 1024",
            [(64, 3 * 128, 3), (64, FEATURES, PARTS)],
            |(rows, features, parts)| {
                let weight = TensorDesc::f32([features, 1024]);
                SaeEncodeParts { k: ACTIVE, parts }.plan(
                    &rows_of(rows),
                    &weight,
                    &TensorDesc::f32([features]),
                )
            },
        )?,
        job("64 rows, 256 lists of 100", [64, 64], |rows| {
            let lists = [rows, PARTS, ACTIVE];
            SaeMerge.plan(&TensorDesc::u32(lists), &TensorDesc::f32(lists))
        })?
        .filled(vec![("part_indices", Fill::Below(128)), ("part_values", Fill::Words(lists))]),
        job("64 rows, 100 of 32,768 x 1024", BATCH, |rows| {
            let (indices, values) = places(rows);
            SaeFeatureGrad.plan(&indices, &values, &table, &rows_of(rows), &TensorDesc::f32([1]))
        })?
        .filled(vec![("indices", Fill::Words(indices.clone())), positive("values")]),
        job("64 rows, 100 of 32,768", BATCH, |rows| {
            let (indices, values) = places(rows);
            SaeGroup { features: FEATURES, rows, k: ACTIVE, aux_k: 0 }.plan(&indices, &values)
        })?
        .filled(vec![("indices", Fill::Words(indices.clone())), positive("values")]),
        job("64 rows, 100 of 32,768 x 1024", BATCH, |rows| {
            let (values, x) = (places(rows).1, rows_of(rows));
            SaeFeatureSums.plan([&bounds, &pairs(rows), &values, &values, &x, &x, &history])
        })?
        .filled(with(vec![("history", Fill::Below(1000))])),
        job("32,768 features, 1024 columns", BATCH, |rows| {
            SaeClip { scale: 2.0 / rows as f32, max_norm: 1.0 }.plan(
                &sums,
                &TensorDesc::f32([1024, 1]),
                &TensorDesc::f32([SCHEDULE]),
            )
        })?
        .filled(vec![positive("sums")]),
        job("64 rows, 100 of 32,768 x 1024", BATCH, |rows| {
            let (coefs, moments) = (places(rows).1, TensorDesc::f32([FEATURES, 1, 1024]));
            SaeAdamRows { adam, length: Length::Unit }.plan([
                &table,
                &moments,
                &bounds,
                &pairs(rows),
                &coefs,
                &rows_of(rows),
                &sums,
                &rates,
            ])
        })?
        .filled(with(vec![
            positive("moments"),
            ("sums", Fill::Between(1.0, 900.0)),
            positive("rates"),
        ])),
        job("32,768 values", BATCH, |_| {
            let moments = TensorDesc::f32([1, FEATURES]);
            AdamStep { adam, column: 1 }.plan(&bias, &moments, &sums, &rates)
        })?
        .filled(vec![positive("moments"), positive("rates")]),
        job("[64, 1024]", BATCH, |rows| SumRows { factor: -1.0 }.plan(&rows_of(rows)))?,
        job("32,768 features", BATCH, |_| SaeDeadBias { after: 39 }.plan(&bias, &history))?
            .filled(vec![("history", Fill::Below(40))]),
        // modes with thresholds: one pre-activation in six is above its own, one in two thousand near it
        job("[64, 32768]", BATCH, |rows| {
            SaeActive.plan(&TensorDesc::f32([rows, FEATURES]), Some(&TensorDesc::f32([FEATURES])))
        })?
        .filled(vec![logs.clone()]),
        job("64 rows, 32,768 x 1024", BATCH, |rows| {
            SaeThresholdGrad { bandwidth: 1e-3 }.plan(
                &TensorDesc::f32([rows, FEATURES]),
                &TensorDesc::f32([FEATURES]),
                &table,
                &rows_of(rows),
                &TensorDesc::f32([1]),
            )
        })?
        .filled(vec![logs]),
        job("100 of 256 places a row, 64 rows", BATCH, |rows| {
            let (values, number) = (TensorDesc::f32([rows, PLACES]), TensorDesc::f32([1]));
            SaeBatchTopK { most: rows * ACTIVE }.plan(&values, &number, &number)
        })?
        .filled(vec![positive("values"), positive("keep")]),
    ])
}

/// What the encoder in bf16 takes for the error of a column, where weights are spread evenly up to 1 as noise is.
const ERROR: f32 = 0.577 / 128.0;

/// Errors of 1024 columns; candidates of rows of noise, and scores as those of so many features are: normal, of the spread that 1024 products of noise have.
pub fn found(rows: usize, features: usize) -> Vec<(&'static str, Fill)> {
    let places = screened(100, features);
    // weights are 0 and the bias of every 141st feature is the score of a place, so that sums are scores
    let group = features / places;
    let candidate = |at: usize| at % places + places * (at / places * 7919 % group);
    let score = |place: usize| {
        // how far from the middle so small a share of normal values begins
        let share = (place as f64 + 0.5) / features as f64;
        let root = (-2.0 * share.ln()).sqrt();
        let from = root - ((2.0 * std::f64::consts::PI).sqrt() * root).ln() / root;
        (1024.0_f64.sqrt() / 3.0 * from) as f32
    };
    let list = 0..rows * places;
    let errors = (0..1024 + features).map(|i| if i < 1024 { ERROR } else { 1.0 });
    vec![
        ("weight", Fill::Multiples(0.0, 1)),
        ("bias", Fill::Words((0..features).map(|f| score(f % places).to_bits()).collect())),
        ("errors", Fill::Words(errors.map(f32::to_bits).collect())),
        ("candidates", Fill::Words(list.clone().map(|at| candidate(at) as u32).collect())),
        ("scores", Fill::Words(list.map(|at| score(at % places).to_bits()).collect())),
    ]
}

/// Of the rows of `CLIPS` clips, and of one block of rows.
pub fn autoencoders() -> Result<Vec<Job>> {
    Ok(vec![
        job(
            "[128, 256] x [2048, 256], 32 best",
            [(128, 256, 2048, 32), (65_536, 1024, 32_768, 100)],
            |sizes| {
                let (rows, width, features, k) = sizes;
                let weight = TensorDesc::f32([features, width]);
                SaeEncode { k }.plan(&TensorDesc::f32([rows, width]), &weight, &TensorDesc::f32([features]))
            },
        )?,
        job(
            "[128, 256] x [2048, 256], 56 best",
            [(128, 256, 2048, 32), (65_536, 1024, 32_768, 100)],
            |(rows, width, features, k)| {
                let [x, weight] =
                    [[rows, width], [features, width]].map(|shape| TensorDesc::new(DType::BF16, shape));
                SaeScreen { k: screened(k, features) }.plan(&x, &weight, &TensorDesc::f32([features]))
            },
        )?,
        job("128 rows, 100 of [4096, 1024]", [(128, 4096), (65_536, 32_768)], |(rows, features)| {
            SaeDecode.plan(
                &TensorDesc::u32([rows, 100]),
                &TensorDesc::f32([rows, 100]),
                &TensorDesc::f32([features, 1024]),
                &TensorDesc::f32([1024]),
                None,
            )
        })?
        .filled(vec![("indices", Fill::Below(4096))]),
        job(
            "128 rows, 100 best of 141 of [4096, 1024]",
            [(128, 4096), (65_536, 32_768)],
            |(rows, features)| {
                let list = [rows, screened(100, features)];
                SaeRescore { k: 100 }.plan(
                    &TensorDesc::f32([rows, 1024]),
                    &TensorDesc::f32([features, 1024]),
                    &TensorDesc::f32([features]),
                    &TensorDesc::f32([1024 + features]),
                    &TensorDesc::u32(list),
                    &TensorDesc::f32(list),
                )
            },
        )?
        .filled(found(128, 4096)),
        job("128 rows, 256 of 4096", [(128, 4096), (65_536, 32_768)], |(rows, features)| {
            let places = [rows, PLACES];
            SaeAddThreshold.plan(
                &TensorDesc::u32(places),
                &TensorDesc::f32(places),
                &TensorDesc::f32([features]),
            )
        })?
        .filled(vec![("indices", Fill::Below(4096))]),
    ])
}
