//! Features of autoencoders: what is stored of them, what is known of them at the end, what is refused.

use super::*;
use crate::Category;

fn finished(dir: &Path, meta: StoreMeta) -> StoreReader {
    let Opened::Writer(writer, _) = StoreWriter::open(dir, meta, false).unwrap() else { panic!("finished") };
    write_rest(*writer, 0);
    StoreReader::open(dir).unwrap()
}

fn only() -> StoreMeta {
    StoreMeta { sae_only: true, ..meta(StoreDtype::F32) }
}

#[test]
fn features_come_back_with_and_without_activations() {
    for meta in [meta(StoreDtype::F16), only()] {
        let dir = tempfile::tempdir().unwrap();
        let store = finished(dir.path(), meta.clone());
        assert_eq!(store.meta(), &meta);
        for (clip, row) in store.clips().iter().enumerate() {
            for (at, sae) in meta.saes.iter().enumerate() {
                let (got, want) =
                    (store.features(&sae.name, &row.clip_id).unwrap(), sae_rows(clip, at, &meta));
                assert_eq!(got.resized(4), want.features.resized(4), "clip {clip} of {}", sae.name);
                assert!(sae.k.is_none_or(|k| k == got.k));
            }
            assert_eq!(store.rows("logits", &row.clip_id).is_ok(), !meta.sae_only);
        }
        assert_eq!(dir.path().join("logits/00000.safetensors").exists(), !meta.sae_only);
        assert!(verify(dir.path()).unwrap().is_sound());
    }
    let dir = tempfile::tempdir().unwrap();
    let store = finished(dir.path(), only());
    let error = store.rows("logits", &store.clips()[0].clip_id).unwrap_err().to_string();
    assert!(error.contains("holds features alone, rows of `logits`"), "{error}");
    let error = store.features("some", &store.clips()[0].clip_id).unwrap_err().to_string();
    assert!(error.contains("no autoencoder `some`, expected one of few, many"), "{error}");
}

#[test]
fn files_are_what_other_programs_expect() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path(), only());
    // clips 4 to 6, 20 rows: of an autoencoder without a limit as many places as the fullest row has
    let meta = only();
    let fullest = |at| {
        (4..7)
            .map(|clip| sae_rows(clip, at, &meta).features)
            .map(|f| f.values.chunks(f.k).map(|row| row.iter().filter(|v| **v > 0.0).count()).max().unwrap())
            .max()
            .unwrap()
    };
    for (name, index, k) in [
        ("hook_layers.1/00002.few", safetensors::Dtype::U16, 2),
        ("logits/00002.many", safetensors::Dtype::U32, fullest(1)),
    ] {
        let bytes = fs::read(dir.path().join(format!("{name}.safetensors"))).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |name: &str| {
            (tensors.tensor(name).unwrap().dtype(), tensors.tensor(name).unwrap().shape().to_vec())
        };
        assert_eq!(tensor("indices"), (index, vec![20, k]), "{name}");
        assert_eq!(tensor("values"), (safetensors::Dtype::F32, vec![20, k]), "{name}");
    }
}

/// Of a feature: count, mean, maximum, and its clip and position.
type Known = (u32, f32, f32, u32, u32);

/// What the definitions say of an autoencoder, over all rows at once.
fn by_hand(at: usize, meta: &StoreMeta) -> (SaeSummary, Vec<Known>) {
    let sae = &meta.saes[at];
    let hook = meta.sites.iter().position(|site| site.hook == sae.hook).unwrap();
    let rows: Vec<f64> = (0..FRAMES.len()).flat_map(|clip| values(clip, hook, meta)).map(f64::from).collect();
    let count = rows.len() / sae.width;
    let mean = |column: usize| rows.iter().skip(column).step_by(sae.width).sum::<f64>() / count as f64;
    let means: Vec<f64> = (0..sae.width).map(mean).collect();
    let spread: f64 = rows.iter().enumerate().map(|(i, v)| (v - means[i % sae.width]).powi(2)).sum();
    let error: f64 = rows.iter().map(|v| (v / 2.0).powi(2)).sum();
    let mut of_feature = BTreeMap::<u32, Vec<(f32, u32, u32)>>::new();
    for clip in 0..FRAMES.len() {
        let features = sae_rows(clip, at, meta).features;
        for (place, (&feature, &value)) in features.indices.iter().zip(&features.values).enumerate() {
            if value > 0.0 {
                of_feature.entry(feature).or_default().push((
                    value,
                    clip as u32,
                    (place / features.k) as u32,
                ));
            }
        }
    }
    let known = (0..sae.features as u32).map(|feature| {
        let fired = of_feature.get(&feature).cloned().unwrap_or_default();
        let most = fired.iter().fold((0.0, 0, 0), |most, one| if one.0 > most.0 { *one } else { most });
        let sum: f64 = fired.iter().map(|one| f64::from(one.0)).sum();
        (fired.len() as u32, (sum / fired.len().max(1) as f64) as f32, most.0, most.1, most.2)
    });
    let known: Vec<_> = known.collect();
    let summary = SaeSummary {
        sae: sae.name.clone(),
        hook: sae.hook.clone(),
        rows: count as u64,
        fvu: Some(error / spread),
        explained_variance: Some(1.0 - error / spread),
        l0: of_feature.values().map(Vec::len).sum::<usize>() as f64 / count as f64,
        features: sae.features,
        dead: sae.features - of_feature.len(),
    };
    (summary, known)
}

#[test]
fn what_is_known_of_features_is_what_the_definitions_say() {
    let dir = tempfile::tempdir().unwrap();
    let store = finished(dir.path(), only());
    let run = RunRecord::read(dir.path().join("run.json")).unwrap();
    let summaries: Vec<SaeSummary> = serde_json::from_value(run.details["saes"].clone()).unwrap();
    for (at, sae) in store.meta().saes.iter().enumerate() {
        let (summary, known) = by_hand(at, store.meta());
        let found = &summaries[at];
        let close = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-12;
        assert!(close(found.fvu, summary.fvu) && close(found.explained_variance, summary.explained_variance));
        let rest =
            SaeSummary { fvu: summary.fvu, explained_variance: summary.explained_variance, ..found.clone() };
        assert_eq!(rest, summary);
        let bytes = fs::read(dir.path().join(sae_stats_name(sae))).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<u32> {
            let data = tensors.tensor(name).unwrap().data().to_vec();
            data.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
        };
        let floats = |name: &str| words(name).into_iter().map(f32::from_bits).collect::<Vec<f32>>();
        let (count, mean, max) = (words("count"), floats("mean"), floats("max"));
        let (clip, position) = (words("max_clip"), words("max_position"));
        for (feature, want) in known.into_iter().enumerate() {
            let got = (count[feature], mean[feature], max[feature], clip[feature], position[feature]);
            assert_eq!(got, want, "feature {feature} of {}", sae.name);
        }
    }
}

#[test]
fn equal_rows_have_no_variance_to_explain() {
    let rows = [0.1f32, -7.3, 0.1, -7.3, 0.1, -7.3];
    assert_eq!(Fit::of(&rows, &[0.0; 6], 2).fvu(), None);
    let mut parts = Fit::of(&rows[..2], &[0.0; 2], 2);
    parts.add(&Fit::of(&[1.0, 2.0], &[1.0, 1.0], 2));
    // rows (0.1, -7.3) and (1, 2) lie 0.45 and 4.65 from their mean
    let spread = 2.0 * (0.45f64.powi(2) + 4.65f64.powi(2));
    let error = 0.1f64.powi(2) + 7.3f64.powi(2) + 1.0;
    assert!((parts.fvu().unwrap() - error / spread).abs() < 1e-6, "{:?}", parts.fvu());
}

#[test]
fn features_that_cannot_be_are_refused() {
    let sparse = |k: usize, indices: &[u32], values: &[f32]| {
        let mut features = SparseRows { k, indices: indices.to_vec(), values: values.to_vec() };
        features.indices.resize(4 * k, 0);
        features.values.resize(4 * k, 0.0);
        features
    };
    for (features, part) in [
        (sparse(3, &[], &[]), "12 of 3 places a row, expected 4 rows of 2 places"),
        (sparse(2, &[5], &[1.0]), "feature 5, expected less than 5"),
        (sparse(2, &[1, 2], &[1.0, 2.0]), "row 0, place 1 has feature 2, value 2, out of order"),
        (
            sparse(2, &[0, 0, 3, 2], &[0.0, 0.0, 1.0, 1.0]),
            "row 1, place 1 has feature 2, value 1, out of order",
        ),
        (sparse(2, &[3], &[0.0]), "feature 3 with value 0, expected feature 0"),
        (sparse(2, &[0], &[f32::NAN]), "value NaN, expected a finite number from 0"),
        (sparse(2, &[0], &[-1.0]), "value -1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Opened::Writer(mut writer, _) = StoreWriter::open(dir.path(), only(), false).unwrap() else {
            panic!("finished")
        };
        let mut rows = all_sae_rows(0, &only());
        rows[0].features = features;
        let error = writer.append(new_clip(0), &codes(0, &only()), &[], &rows).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("`few`"), "{part}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let Opened::Writer(mut writer, _) = StoreWriter::open(dir.path(), only(), false).unwrap() else {
        panic!("finished")
    };
    let mut rows = all_sae_rows(0, &only());
    rows[1].fit.rows = 3;
    let error = writer.append(new_clip(0), &codes(0, &only()), &[], &rows).unwrap_err().to_string();
    assert!(error.contains("fit of `many`") && error.contains("expected 4 rows of width 7"), "{error}");
    rows.pop();
    let error = writer.append(new_clip(0), &codes(0, &only()), &[], &rows).unwrap_err().to_string();
    assert!(error.contains("autoencoders of clip") && error.contains("expected 2"), "{error}");
}

#[test]
fn autoencoders_that_cannot_be_stored_are_refused() {
    type Change = fn(&mut StoreMeta);
    let changes: [(Change, &str); 6] = [
        (|meta| meta.saes.clear(), "at least 1"),
        (|meta| meta.saes[1].name = "few".into(), "a name of its own"),
        (|meta| meta.saes[1].name = "a/b".into(), "letters, digits"),
        (|meta| meta.saes[0].hook = "embed".into(), "one of hook_layers.1, logits"),
        (|meta| meta.saes[0].width = 4, "3, as at its hook"),
        (|meta| meta.saes[0].k = Some(6), "1 to 5"),
    ];
    for (change, part) in changes {
        let mut meta = only();
        change(&mut meta);
        let dir = tempfile::tempdir().unwrap();
        let error = StoreWriter::open(dir.path(), meta, false).unwrap_err();
        assert_eq!(error.category(), Category::Usage, "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
    }
}

#[test]
fn names_are_those_of_the_paths() {
    let paths =
        ["a/layers.11", "b/layers.11/", "sae", "c/sae", "stats", "open-3", "x/..", "musik ä", "音楽", "été"]
            .map(Path::new);
    let names = sae_names(&paths);
    let expected = [
        "layers-11",
        "layers-11-2",
        "sae",
        "sae-2",
        "sae-stats",
        "sae-open-3",
        "sae-3",
        "musik--",
        "sae-4",
        "t",
    ];
    assert_eq!(names, expected);
    assert!(names.iter().all(|name| is_sae_name(name)));
}

#[test]
fn a_store_of_before_there_were_features_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let meta = meta(StoreDtype::F32);
    let mut json = serde_json::to_value(StoreMeta { saes: Vec::new(), ..meta.clone() }).unwrap();
    assert!(json.get("saes").is_none() && json.get("sae_only").is_none());
    fs::write(dir.path().join(STORE_JSON), json.to_string()).unwrap();
    assert_eq!(StoreMeta::read(dir.path()).unwrap(), StoreMeta { saes: Vec::new(), ..meta });
    json["format"] = 2.into();
    fs::write(dir.path().join(STORE_JSON), json.to_string()).unwrap();
    assert!(StoreMeta::read(dir.path()).unwrap_err().to_string().contains("expected 1"));
}

#[test]
fn features_out_of_order_are_found_even_with_right_hashes() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path(), only());
    let name = "hook_layers.1/00000.few.safetensors";
    let mut bytes = fs::read(dir.path().join(name)).unwrap();
    let end = bytes.len();
    // the last place of the file is a feature
    bytes[end - 2..].copy_from_slice(&5u16.to_le_bytes());
    fs::write(dir.path().join(name), bytes).unwrap();
    super::damage::seal(dir.path());
    let report = verify(dir.path()).unwrap();
    assert!(report.problems.iter().any(|p| p.contains(name) && p.contains("row 9, place 1")), "{report:?}");
}
