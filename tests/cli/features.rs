//! `features`: what a store's features do, counted again by hand; and steering by what was counted.

use crate::sae::{words, write_sae};
use crate::support::{fixture, floats, folder, index, json_file, names, run, tensor};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

crate::trials!(
    statistics_are_those_of_the_rows,
    classes_are_compared,
    the_strongest_clips_are_cut_out,
    sound_that_is_not_the_captured_one_is_refused,
    profiles_are_written,
    steering_counts_in_recorded_maxima,
    wrong_options_are_named,
);

const FEATURES: usize = 70;

/// Captures two recordings, four clips, and encodes them: `f` is a store of features.
fn encoded(at: &Path) {
    let capture = "capture FIX/flac_s16.flac FIX/mono_32k.mp3 --model MODEL --window 1 --out s";
    run(at, &format!("{capture} --hooks hook_layers.1")).ok();
    write_sae(&at.join("sae"), "hook_layers.1");
    run(at, "sae encode --sae sae --store s --out f").ok();
}

/// A place of a row that is active: number of the clip, position, feature, value.
type Active = (usize, usize, usize, f32);

fn active(store: &Path) -> Vec<Active> {
    let shard = store.join("hook_layers.1/00000.sae.safetensors");
    let (indices, values) = (words(&tensor(&shard, "indices").2), floats(&tensor(&shard, "values").2));
    let mut found = Vec::new();
    for (clip, row) in index(store).iter().enumerate() {
        let number = |field: &str| row[field].as_u64().expect("a number") as usize;
        for position in 0..number("positions") {
            let at = (number("row_start") + position) * 6;
            let places = indices[at..at + 6].iter().zip(&values[at..at + 6]).filter(|(_, v)| **v > 0.0);
            found.extend(places.map(|(&f, &v)| (clip, position, f as usize, v)));
        }
    }
    found
}

/// The feature that is active most often, and its largest value.
fn loudest(at: &Path) -> (usize, f32) {
    let all = active(&at.join("f"));
    let count = |feature: usize| all.iter().filter(|a| a.2 == feature && a.1 > 0).count();
    let feature = (0..FEATURES).max_by_key(|&f| count(f)).expect("there are features");
    let of = all.iter().filter(|a| a.2 == feature && a.1 > 0);
    (feature, of.map(|a| a.3).fold(0.0, f32::max))
}

fn statistics_are_those_of_the_rows() {
    let dir = folder();
    let at = dir.path();
    encoded(at);
    let summary =
        run(at, "features stats --store f --min-rate 0.5 --max-rate 0.5 --out s.json --json").ok().json();
    let file = json_file(&at.join("s.json"));
    assert_eq!(
        [&summary["rows"], &summary["clips"], &summary["tracks"]],
        [&json!(163), &json!(4), &json!(2)]
    );
    assert_eq!([&file["hook"], &file["site"]], [&json!("hook_layers.1"), &json!("layers.1.resid_post")]);
    let all = active(&at.join("f"));
    let rows = index(&at.join("f"));
    let (mut passing, mut never) = (0, 0);
    for feature in 0..FEATURES {
        let of: Vec<&Active> = all.iter().filter(|a| a.2 == feature && a.1 > 0).collect();
        let row = &file["table"][feature];
        assert_eq!(row["feature"], feature);
        assert_eq!(row["count"], of.len(), "feature {feature}");
        let mut tracks: Vec<&Value> = of.iter().map(|a| &rows[a.0]["track_id"]).collect();
        tracks.sort_by_key(|track| track.to_string());
        tracks.dedup();
        let mut clips: Vec<usize> = of.iter().map(|a| a.0).collect();
        clips.dedup();
        let number = |field: &str| row[field].as_f64().expect("a number");
        let near = |found: f64, want: f64| (found - want).abs() <= 1e-12 * want.abs().max(1.0);
        assert!(near(number("rate_position"), of.len() as f64 / 163.0), "feature {feature}");
        assert!(near(number("rate_clip"), clips.len() as f64 / 4.0), "feature {feature}");
        assert!(near(number("rate_track"), tracks.len() as f64 / 2.0), "feature {feature}");
        let sum: f64 = of.iter().map(|a| f64::from(a.3)).sum();
        assert!(near(number("mean"), sum / 163.0), "feature {feature}");
        let max = of.iter().map(|a| a.3).fold(0.0, f32::max);
        assert_eq!(number("max") as f32, max, "feature {feature}");
        match of.iter().find(|a| a.3 == max) {
            Some(first) => {
                assert_eq!(row["max_clip"], rows[first.0]["clip_id"]);
                assert_eq!(row["max_position"], first.1);
                let start = rows[first.0]["start_seconds"].as_f64().expect("a time");
                assert!(
                    near(number("max_seconds"), start + (first.1 - 1) as f64 / 50.0),
                    "feature {feature}"
                );
            }
            None => never += 1,
        }
        assert_eq!(row["passes"], tracks.len() == 1);
        passing += usize::from(tracks.len() == 1);
    }
    assert_eq!([&summary["passing"], &summary["never_active"]], [&json!(passing), &json!(never)]);
    // the other forms hold the same
    run(at, "features stats --store f --sae sae --out s.csv").ok();
    run(at, "features stats --store f --out s.safetensors").ok();
    let table = fs::read_to_string(at.join("s.csv")).expect("it was written");
    assert_eq!(table.lines().count(), FEATURES + 1);
    let maxima = floats(&tensor(&at.join("s.safetensors"), "max").2);
    let want: Vec<f32> =
        (0..FEATURES).map(|f| file["table"][f]["max"].as_f64().expect("a number") as f32).collect();
    assert_eq!(maxima, want);
    // position 0 is counted where that is asked for
    let with = run(at, "features stats --store f --with-start --out t.json --json").ok().json();
    assert_eq!(with["rows"], 167);
    // on one thread the same
    run(at, "features stats --store f --min-rate 0.5 --max-rate 0.5 --out u.json --threads 1").ok();
    assert_eq!(json_file(&at.join("u.json")), file);
}

fn classes_are_compared() {
    let dir = folder();
    let at = dir.path();
    encoded(at);
    let mut tracks: Vec<String> = index(&at.join("f"))
        .iter()
        .map(|row| row["track_id"].as_str().expect("a name").to_string())
        .collect();
    tracks.dedup();
    let [one, other] = tracks.as_slice() else { panic!("two recordings: {tracks:?}") };
    fs::write(at.join("l.csv"), format!("track_id,label\n{one},noise\n{other},tone\n"))
        .expect("it can be written");
    let json = run(at, "features stats --store f --labels l.csv --out s.json --json").ok().json();
    assert_eq!(json["classes"], json!([{ "label": "noise", "tracks": 1 }, { "label": "tone", "tracks": 1 }]));
    let file = json_file(&at.join("s.json"));
    for row in file["table"].as_array().expect("rows") {
        let active: Vec<f64> = row["class_rates"]
            .as_array()
            .expect("rates")
            .iter()
            .map(|r| r.as_f64().expect("a rate"))
            .collect();
        let (want, class) = match active[..] {
            [1.0, 1.0] => (json!(1.0), json!("noise")),
            [1.0, 0.0] => (json!(2.0), json!("noise")),
            [0.0, 1.0] => (json!(2.0), json!("tone")),
            _ => (Value::Null, Value::Null),
        };
        assert_eq!([&row["selectivity"], &row["class"]], [&want, &class], "{row}");
    }
    // a class without tracks has no rate, and what does not meet is told of
    fs::write(at.join("l.csv"), format!("track_id,label\n{one},noise\nelsewhere,tone\n"))
        .expect("it can be written");
    let ran = run(at, "features stats --store f --labels l.csv --out t.json").ok();
    for part in [
        "1 labelled tracks are not in the store, such as `elsewhere`",
        "1 of the 2 tracks of the store have no label",
    ] {
        assert!(ran.stderr.contains(part), "{ran}");
    }
    let file = json_file(&at.join("t.json"));
    assert!(file["table"].as_array().expect("rows").iter().all(|row| row["class_rates"][1].is_null()));
    for ending in ["csv", "safetensors"] {
        run(at, &format!("features stats --store f --labels l.csv --out t.{ending}")).ok();
    }
    let table = fs::read_to_string(at.join("t.csv")).expect("a table");
    assert!(table.lines().nth(1).is_some_and(|line| line.contains(",,")), "{table}");
    fs::write(at.join("l.csv"), "track_id,label\na,noise\nb,tone\n").expect("it can be written");
    run(at, "features stats --store f --labels l.csv --out t.json")
        .exits(3, &["l.csv", "labels none of the 2"]);
}

fn the_strongest_clips_are_cut_out() {
    let dir = folder();
    let at = dir.path();
    encoded(at);
    let (feature, max) = loudest(at);
    let line = format!("features top --store f --feature {feature} --n 2 --seconds 0.2 --out");
    let json = run(at, &format!("{line} t --json")).ok().json();
    assert_eq!([&json["rows"], &json["wavs"]], [&json!(2), &json!(2)]);
    let list = fs::read_to_string(at.join("t/top.jsonl")).expect("it was written");
    let rows: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    assert_eq!(rows[0]["value"].as_f64().expect("a number") as f32, max);
    assert!(rows[0]["value"].as_f64() >= rows[1]["value"].as_f64());
    let wav = fs::read(at.join("t").join(rows[0]["wav"].as_str().expect("a name"))).expect("it was written");
    // the samples between the two times of the recording
    let source = ["flac_s16.flac", "mono_32k.mp3"]
        .map(fixture)
        .into_iter()
        .find(|path| {
            rows[0]["audio_path"].as_str().is_some_and(|said| path.ends_with(said) || Path::new(said) == path)
        })
        .expect("one of the two");
    let samples = auscult_audio::load(source, 32_000).expect("a recording");
    let sample = |field: &str| (rows[0][field].as_f64().expect("a time") * 32_000.0).round() as usize;
    let want = &samples[sample("start_seconds")..sample("end_seconds").min(samples.len())];
    let found: Vec<i16> = wav[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!(found.len(), want.len());
    assert!(found.len() > 5_000, "{}", found.len());
    for (at, (&found, &want)) in found.iter().zip(want).enumerate() {
        let near = (f32::from(found) / 32_767.0 - want.clamp(-1.0, 1.0)).abs() <= 2.0 / 32_767.0;
        assert!(near, "sample {at}: {found}, expected {want}");
    }
    run(at, &format!("{line} t")).exits(2, &["`--out` is t, which is not empty"]);
}

fn sound_that_is_not_the_captured_one_is_refused() {
    let dir = folder();
    let at = dir.path();
    let sound = at.join("sound.mp3");
    fs::copy(fixture("mono_32k.mp3"), &sound).expect("it can be copied");
    run(at, "capture sound.mp3 --model MODEL --window 1 --hooks hook_layers.1 --out s").ok();
    write_sae(&at.join("sae"), "hook_layers.1");
    run(at, "sae encode --sae sae --store s --out f").ok();
    let (feature, _) = loudest(at);
    // from another folder, by the record of where the capture ran
    fs::create_dir(at.join("there")).expect("it can be made");
    let line = format!("features top --store ../f --feature {feature} --n 1");
    let json = run(&at.join("there"), &format!("{line} --out a --json")).ok().json();
    assert_eq!([&json["wavs"], &json["missing"]], [&json!(1), &json!(0)]);
    let listed = run(&at.join("there"), &format!("{line} --audio-root . --out b --json")).ok();
    assert!(listed.stderr.contains("`--audio-root`"), "{}", listed.stderr);
    assert_eq!([&listed.json()["wavs"], &listed.json()["rows"]], [&json!(0), &json!(1)]);
    assert_eq!(names(&at.join("there/b")), ["run.json", "top.jsonl"]);
    let mut bytes = fs::read(&sound).expect("it is there");
    bytes.push(0);
    fs::write(&sound, bytes).expect("it can be written");
    run(&at.join("there"), &format!("{line} --out c")).exits(4, &["sound.mp3", "SHA-256 is"]);
    assert!(!at.join("there/c").exists());
}

fn profiles_are_written() {
    let dir = folder();
    let at = dir.path();
    encoded(at);
    let (feature, _) = loudest(at);
    run(at, "features stats --store f --out s.json").ok();
    let stats = json_file(&at.join("s.json"));
    let line = format!("features profile --store f --feature {feature}");
    let json = run(at, &format!("{line} --bins 1 --out p.jsonl --json")).ok().json();
    let row: Value = serde_json::from_str(&fs::read_to_string(at.join("p.jsonl")).expect("it was written"))
        .expect("one row");
    // a single part is the mean over all
    let [found, want] =
        [&row["means"][0], &stats["table"][feature]["mean"]].map(|v| v.as_f64().expect("a mean"));
    assert!((found - want).abs() <= 1e-9 * want, "{found}, expected {want}");
    assert_eq!(row["class"], json["profiles"][0]["class"]);
    let courses: u64 =
        row["courses"].as_object().expect("counts").values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!(row["clips"], courses);
    let all = run(at, "features profile --store f --all --out q.jsonl --json").ok().json();
    let rows = fs::read_to_string(at.join("q.jsonl")).expect("it was written");
    let active = FEATURES - stats["never_active"].as_u64().expect("a count") as usize;
    assert_eq!((rows.lines().count(), &all["features"]), (active, &json!(active)));
    let classes: u64 =
        all["classes"].as_object().expect("counts").values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!(all["features"], classes);
}

fn steering_counts_in_recorded_maxima() {
    let dir = folder();
    let at = dir.path();
    encoded(at);
    let (feature, max) = loudest(at);
    run(at, "features stats --store f --out s.json").ok();
    run(at, "features stats --store f --out s.safetensors").ok();
    let generate = "generate --model MODEL --seconds 0.1 --sae sae";
    let beta = |out: &str, rest: &str| {
        run(at, &format!("{generate} {rest} --out {out}")).ok();
        let takes = fs::read_to_string(at.join(out).join("takes.jsonl")).expect("it was written");
        let take: Value = serde_json::from_str(takes.lines().next().expect("a take")).expect("a row");
        take["edits"][0]["beta"].as_f64().expect("a number") as f32
    };
    let steer = format!("--steer hook_layers.1:{feature}=0.5");
    assert_eq!(beta("a", &steer), 1.0);
    assert_eq!(beta("b", &format!("{steer} --stats s.json")), max);
    assert_eq!(beta("c", &format!("{steer} --stats s.safetensors")), max);
    assert_eq!(beta("d", &format!("{steer}@3 --stats s.json")), 3.0);
    let never = json_file(&at.join("s.json"))["table"]
        .as_array()
        .expect("rows")
        .iter()
        .position(|row| row["count"] == 0);
    if let Some(never) = never {
        run(at, &format!("{generate} --steer hook_layers.1:{never}=1 --stats s.json --out e"))
            .exits(3, &["s.json", &format!("feature {never} is 0")]);
    }
    let other = format!("--steer hook_layers.0:{feature}=1 --allow-misaligned --stats s.json");
    run(at, &format!("{generate} {other} --out e"))
        .exits(2, &["`--stats` holds maxima at layers.1.resid_post", "expected layers.0.resid_post"]);
    run(at, &format!("{generate} {steer} --stats s.json --stats s.safetensors --out e")).exits(2, &["twice"]);
    fs::write(at.join("no.json"), "{}").expect("it can be written");
    run(at, &format!("{generate} {steer} --stats no.json --out e"))
        .exits(3, &["no.json", "`features stats`"]);
}

fn wrong_options_are_named() {
    let dir = folder();
    let at = dir.path();
    encoded(at);
    for (line, code, parts) in [
        ("stats --store f --out s.npz", 2, &["`--out` is s.npz", ".safetensors"][..]),
        ("stats --store f --min-rate 0.5 --max-rate 0.1 --out s.json", 2, &["0 <= min <= max <= 1"]),
        ("stats --store f --rate most --out s.json", 2, &["expected any or mean"]),
        ("stats --store f --above NaN --out s.json", 2, &["`--above` is NaN"]),
        ("stats --store f --sae other --out s.json", 3, &["no autoencoder `other`", "sae"]),
        ("stats --store s --out s.json", 3, &["holds no features", "`sae encode --store`"]),
        ("top --store f --feature 70 --out t", 3, &["feature 70 does not exist", "less than 70"]),
        ("top --store f --feature 1 --seconds 0 --out t", 2, &["`--seconds` is 0"]),
        ("profile --store f", 2, &["--feature", "--all"]),
        ("profile --store f --all --out p.json", 2, &["`--out` is p.json", ".jsonl"]),
    ] {
        run(at, &format!("features {line}")).exits(code, parts);
    }
}
