//! Answers worked out by hand, on stores of a few rows, and one course of every kind.

use super::*;
use std::path::Path;

/// A row of the index; clips of a track lie one behind the other.
fn clip(track: &str, at: usize, positions: usize) -> ClipRow {
    ClipRow {
        clip_id: format!("{track}@{at}"),
        track_id: track.into(),
        audio_path: format!("{track}.wav"),
        audio_sha256: String::new(),
        start_seconds: at as f64,
        end_seconds: at as f64 + (positions - 1) as f64 / 50.0,
        frames: positions - 1,
        positions,
        shard: 0,
        row_start: 0,
        partial: false,
        source_sample_rate: 32_000,
    }
}

/// Rows of two places each.
fn rows(active: &[&[(u32, f32)]]) -> SparseRows {
    let place = |row: &[(u32, f32)], at: usize| row.get(at).copied().unwrap_or((0, 0.0));
    let places = || active.iter().flat_map(|row| [place(row, 0), place(row, 1)]);
    let (indices, values) = places().unzip();
    SparseRows { k: 2, indices, values }
}

/// Two clips of one track and one of another; position 0 is alike everywhere.
fn example() -> (Vec<ClipRow>, Vec<SparseRows>) {
    let clips = vec![clip("a", 0, 4), clip("b", 0, 3), clip("a", 10, 3)];
    let codes = vec![
        rows(&[&[(0, 9.0)], &[(1, 2.0)], &[(1, 4.0), (2, 1.0)], &[]]),
        rows(&[&[(0, 9.0), (3, 1.0)], &[(2, 0.5)], &[(3, 1.5), (2, 0.5)]]),
        rows(&[&[(0, 9.0)], &[(2, 1.0)], &[(1, 4.0)]]),
    ];
    (clips, codes)
}

fn with<T>(example: &(Vec<ClipRow>, Vec<SparseRows>), ask: impl FnOnce(&Codes<'_>) -> T) -> T {
    let (clips, rows) = example;
    let read = |clip: &ClipRow| {
        let at = clips.iter().position(|other| other.clip_id == clip.clip_id).unwrap();
        Ok(rows[at].clone())
    };
    ask(&Codes::new(clips, 5, 50.0, read))
}

fn options(from: usize, rate: Rate, above: f32) -> StatsOptions {
    StatsOptions { from, rate, above }
}

fn labels() -> Labels {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.csv");
    std::fs::write(&path, "track_id,label\na,x\nb,y\nelsewhere,z\n").unwrap();
    Labels::read(&path).unwrap()
}

#[test]
fn counts_means_and_maxima_are_those_of_the_rows() {
    let all = with(&example(), |codes| stats(codes, None, options(1, Rate::Any, 0.0), |_| ())).unwrap();
    assert_eq!((all.rows, all.clips, all.tracks), (7, 3, 2));
    let feature = |count, sum, max, at, clips, tracks| FeatureStats {
        count,
        sum,
        max,
        at,
        clips,
        tracks,
        classes: Vec::new(),
    };
    assert_eq!(
        all.features,
        [
            feature(0, 0.0, 0.0, None, 0, 0),
            feature(3, 10.0, 4.0, Some((0, 2)), 2, 1),
            feature(4, 3.0, 1.0, Some((0, 2)), 3, 2),
            feature(1, 1.5, 1.5, Some((1, 2)), 1, 1),
            feature(0, 0.0, 0.0, None, 0, 0),
        ]
    );
    assert_eq!(all.rates(1), [3.0 / 7.0, 2.0 / 3.0, 1.0 / 2.0]);
    // position 0 too
    let all = with(&example(), |codes| stats(codes, None, options(0, Rate::Any, 0.0), |_| ())).unwrap();
    assert_eq!(all.rows, 10);
    assert_eq!(all.features[0], feature(3, 27.0, 9.0, Some((0, 0)), 3, 2));
    assert_eq!(all.features[3].count, 2);
}

#[test]
fn both_conventions_of_a_rate_are_counted() {
    let of = |rate, above| {
        let all = with(&example(), |codes| stats(codes, None, options(1, rate, above), |_| ())).unwrap();
        all.features.iter().map(|f| (f.clips, f.tracks)).collect::<Vec<_>>()
    };
    // values are never below 0: without a bound both are the same
    assert_eq!(of(Rate::Any, 0.0), of(Rate::Mean, 0.0));
    assert_eq!(of(Rate::Any, 0.9), [(0, 0), (2, 1), (2, 1), (1, 1), (0, 0)]);
    // means of clips and tracks: feature 1 has 2, 2 and 2; feature 2 has 1/3, 1/2, 1/2 and 2/5, 1/2; feature 3 has 3/4
    assert_eq!(of(Rate::Mean, 0.45), [(0, 0), (2, 1), (2, 1), (1, 1), (0, 0)]);
    assert_eq!(of(Rate::Mean, 0.5), [(0, 0), (2, 1), (0, 0), (1, 1), (0, 0)]);
}

#[test]
fn classes_are_told_apart() {
    let labels = labels();
    let all =
        with(&example(), |codes| stats(codes, Some(&labels), options(1, Rate::Any, 0.0), |_| ())).unwrap();
    assert_eq!(all.class_tracks, [1, 1, 0]);
    assert_eq!(all.class_rates(1), [Some(1.0), Some(0.0), None]);
    // a class without tracks has no part in the mean
    assert_eq!(all.selectivity(1), Some((2.0, 0)));
    assert_eq!(all.selectivity(2), Some((1.0, 0)));
    assert_eq!(all.selectivity(3), Some((2.0, 1)));
    assert_eq!(all.selectivity(4), None);
}

fn file(example: &(Vec<ClipRow>, Vec<SparseRows>), labels: Option<&Labels>) -> StatsFile {
    let options = options(1, Rate::Any, 0.0);
    let origin = Origin { site: "layers.1.resid_post".into(), ..Origin::default() };
    with(example, |codes| {
        let all = stats(codes, labels, options, |_| ()).unwrap();
        StatsFile::new(&all, codes, labels, options, [0.5, 0.5], origin)
    })
}

#[test]
fn files_hold_what_was_counted() {
    let labels = labels();
    let file = file(&example(), Some(&labels));
    assert_eq!((file.passing, file.never_active, file.features), (2, 2, 5));
    let row = &file.table[1];
    assert_eq!((row.passes, row.mean, row.mean_active), (true, 10.0 / 7.0, 10.0 / 3.0));
    assert_eq!(
        (row.max_clip.as_deref(), row.max_position, row.max_seconds),
        (Some("a@0"), Some(2), Some(0.02))
    );
    assert_eq!((row.selectivity, row.class.as_deref()), (Some(2.0), Some("x")));
    let dir = tempfile::tempdir().unwrap();
    let written = |name: &str| {
        let path = dir.path().join(name);
        write_stats(&path, &file).unwrap();
        path
    };
    let json = written("s.json");
    let again: StatsFile = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(again, file);
    let maxima = Maxima { site: "layers.1.resid_post".into(), values: vec![0.0, 4.0, 1.0, 1.5, 0.0] };
    assert_eq!(Maxima::read(&json).unwrap(), maxima);
    assert_eq!(Maxima::read(&written("s.safetensors")).unwrap(), maxima);
    let table = std::fs::read_to_string(written("s.csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[0].ends_with("max_seconds,rate x,rate y,rate z,selectivity,class"), "{}", lines[0]);
    let shares = format!("1,3,{},{},0.5,true,{},{}", 3.0 / 7.0, 2.0 / 3.0, 10.0 / 7.0, 10.0 / 3.0);
    assert_eq!(lines[2], format!("{shares},4,a@0,2,0.02,1,0,,2,x"));
    assert_eq!(lines[5], "4,0,0,0,0,false,0,0,0,,,,0,0,,,");
    let error = write_stats(Path::new("s.npz"), &file).unwrap_err().to_string();
    assert!(error.contains("--out") && error.contains(".safetensors"), "{error}");
}

#[test]
fn the_strongest_clips_come_first() {
    let peaks = |count, from| with(&example(), |codes| top(codes, &[1, 2, 4], count, from, |_| ())).unwrap();
    let peak = |clip, position, value| Peak { clip, position, value };
    // clips 0 and 2 are as strong in feature 1 and in feature 2
    let all = vec![
        vec![peak(0, 2, 4.0), peak(2, 2, 4.0)],
        vec![peak(0, 2, 1.0), peak(2, 1, 1.0), peak(1, 1, 0.5)],
        vec![],
    ];
    assert_eq!(peaks(10, 1), all);
    assert_eq!(peaks(1, 1), [vec![all[0][0]], vec![all[1][0]], vec![]]);
    assert_eq!(peaks(10, 2)[1], [peak(0, 2, 1.0), peak(1, 2, 0.5)]);
}

#[test]
fn spans_lie_within_their_clip() {
    let row = ClipRow { start_seconds: 10.0, end_seconds: 20.0, ..clip("a", 0, 501) };
    for (position, seconds, start, end) in [
        (251, 5.0, 12.5, 17.5),
        (0, 5.0, 10.0, 15.0),
        (1, 5.0, 10.0, 15.0),
        (500, 5.0, 15.0, 20.0),
        (251, 30.0, 10.0, 20.0),
    ] {
        assert_eq!(span(&row, position, 50.0, seconds), Span { start, end }, "{position}");
    }
}

#[test]
fn what_does_not_fit_the_index_is_named() {
    let error = |(clips, codes): (Vec<ClipRow>, Vec<SparseRows>)| {
        with(&(clips, codes), |codes| top(codes, &[1], 1, 0, |_| ())).unwrap_err().to_string()
    };
    let (mut clips, codes) = example();
    clips[1].positions = 4;
    let found = error((clips, codes));
    assert!(
        found.contains("rows of features of clip `b@0`") && found.contains("4, as the index says"),
        "{found}"
    );
    let (clips, mut codes) = example();
    codes[0].indices[2] = 5;
    let found = error((clips, codes));
    assert!(found.contains("a feature of clip `a@0`") && found.contains("less than 5"), "{found}");
}

#[test]
fn profiles_average_over_the_clips_that_reach_a_part() {
    let clips = vec![clip("a", 0, 5), clip("b", 0, 3)];
    let codes = vec![
        rows(&[&[(1, 9.0)], &[(1, 1.0)], &[(2, 1.0)], &[], &[(1, 3.0)]]),
        rows(&[&[], &[], &[(1, 2.0)]]),
    ];
    let options = ProfileOptions { bins: 2, from: 1 };
    let found = with(&(clips, codes), |codes| profile(codes, &[1, 3], options, |_| ())).unwrap();
    assert_eq!((found.bin_seconds, found.clips.as_slice()), (0.04, &[2, 1][..]));
    let one = &found.features[0];
    assert_eq!((one.feature, one.clips, one.means.as_slice()), (1, 2, &[0.75, 1.5][..]));
    assert_eq!(one.courses.iter().sum::<usize>(), 2);
    let none = &found.features[1];
    assert_eq!((none.clips, none.course(), none.means.as_slice()), (0, None, &[0.0, 0.0][..]));
}

/// Ten seconds at 50 positions a second.
fn course(value: impl Fn(f64) -> f64) -> (Course, Measures) {
    let values: Vec<f32> = (0..500).map(|at| value(f64::from(at) / 50.0) as f32).collect();
    let measures = measure(&values, 50.0);
    (classify(&measures), measures)
}

#[test]
fn courses_of_every_kind_are_told_apart() {
    use std::f64::consts::TAU;
    let inside = |on: bool| if on { 1.0 } else { 0.0 };
    let (class, measures) = course(|_| 0.75);
    assert_eq!((class, measures.spread), (Course::Static, 0.0));
    assert_eq!(course(|t| 1.0 + 0.3 * (TAU * t).sin()).0, Course::Static);
    // a pulse twice a second; a swell every second; a swell that dies away
    let (class, measures) = course(|t| inside((t * 50.0).round() % 25.0 < 3.0));
    assert_eq!((class, measures.period), (Course::Periodic, 0.5));
    let (class, measures) = course(|t| 1.0 + (TAU * t).sin());
    assert_eq!((class, measures.period), (Course::Periodic, 1.0));
    assert_eq!(course(|t| (1.0 + (TAU * t).sin()) * (-t / 8.0).exp()).0, Course::Periodic);
    // a burst of a fifth of a second, at either end and in the middle; two that are not even
    for start in [0.0, 4.0, 9.8] {
        assert_eq!(course(|t| inside((start..start + 0.2).contains(&t))).0, Course::Event, "{start}");
    }
    assert_eq!(course(|t| inside((1.0..1.2).contains(&t) || (8.0..8.3).contains(&t))).0, Course::Event);
    // a rise, a fall, a step, a section, a swell over the whole clip
    let arcs: [(&str, &dyn Fn(f64) -> f64); 5] = [
        ("rise", &|t| t),
        ("fall", &|t| 10.0 - t),
        ("step", &|t| inside(t > 6.0)),
        ("section", &|t| inside((3.0..6.0).contains(&t))),
        ("swell", &|t| (1.0 - (TAU * t / 10.0).cos()).powi(2)),
    ];
    for (name, arc) in arcs {
        let (class, measures) = course(arc);
        assert_eq!(class, Course::Arc, "{name}: {measures:?}");
    }
    assert!((course(|t| inside(t > 6.0)).1.centre - 0.8).abs() < 0.01);
    // noise, half of it silent
    let state = std::cell::Cell::new(7u32);
    let noise = |_| {
        state.set(state.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        (f64::from(state.get() >> 8) / f64::from(1 << 23) - 1.0).max(0.0)
    };
    let (class, measures) = course(noise);
    assert_eq!(class, Course::Irregular, "{measures:?}");
    assert_eq!(measure(&[0.0; 9], 50.0), Measures::default());
}
