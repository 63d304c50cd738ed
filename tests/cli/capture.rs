//! `capture`: how audio is cut, what is stored of it, and that every option does what it says.

use crate::capture_sae::features_of_an_adapter_are_those_of_its_rows;
use crate::sae::not_finite_rows_are_marked_on;
use crate::support::{
    check_sums, command, finished, fixture, floats, folder, index, json_file, model, music, names, resid,
    run, tensor, tree,
};
use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_model::t5::{TextEncoder, TextPad};
use auscult_runtime::{Backend, CpuBackend, Edits};
use half::{bf16, f16};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

crate::trials!(
    three_formats_into_one_store,
    windows_stride_and_ranges_cut_where_they_say,
    whole_files_are_one_clip,
    smaller_types_are_rounded_from_f32,
    aliases_are_the_sites_they_name,
    posembs_differ,
    a_text_is_attended_to,
    bad_texts_are_refused,
    batches_do_not_change_the_result,
    manifests_name_tracks_and_promise_hashes,
    stdout_is_the_result_and_nothing_else,
    run_json_says_how_to_do_it_again,
    a_run_is_the_same_twice,
    bad_files_are_left_out_and_listed,
);

fn three_formats_into_one_store() {
    let dir = folder();
    let line = "capture FIX/pcm_s16le.wav FIX/flac_s16.flac FIX/stereo_vbr_44k.mp3 --model MODEL --out s --window 1 \
                --hooks hook_layers.{0,2},embed,final_norm,logits";
    run(dir.path(), line).ok();
    let store = dir.path().join("s");
    let rows = index(&store);
    // 1.5 s, 1.25 s (27,563 samples at 22,050 Hz) and 2 s, in windows of 1 s
    let expected = [
        ("pcm_s16le", 0.0, 1.0, 50, false, 8_000),
        ("pcm_s16le", 1.0, 1.5, 25, true, 8_000),
        ("flac_s16", 0.0, 1.0, 50, false, 22_050),
        ("flac_s16", 1.0, 40_001.0 / 32_000.0, 13, true, 22_050),
        ("stereo_vbr_44k", 0.0, 1.0, 50, false, 44_100),
        ("stereo_vbr_44k", 1.0, 2.0, 50, false, 44_100),
    ];
    assert_eq!(rows.len(), expected.len());
    let mut row_start = 0;
    for (row, (track, start, end, frames, partial, rate)) in rows.iter().zip(expected) {
        assert_eq!(row["track_id"], track);
        assert_eq!(
            (row["start_seconds"].as_f64(), row["end_seconds"].as_f64()),
            (Some(start), Some(end)),
            "{row}"
        );
        assert_eq!((&row["frames"], &row["positions"]), (&json!(frames), &json!(frames + 1)), "{row}");
        assert_eq!((&row["partial"], &row["source_sample_rate"]), (&json!(partial), &json!(rate)), "{row}");
        assert_eq!((&row["shard"], &row["row_start"]), (&json!(0), &json!(row_start)), "{row}");
        let audio = fs::read(row["audio_path"].as_str().expect("a path")).expect("the fixture");
        assert_eq!(row["audio_sha256"], hash(&audio));
        let (dtype, shape, _) = codes(&store, row);
        assert_eq!((dtype.as_str(), shape), ("U16", vec![4, frames]));
        row_start += frames + 1;
    }
    for (hook, width) in
        [("hook_layers.0", 128), ("hook_layers.2", 128), ("embed", 128), ("final_norm", 128), ("logits", 256)]
    {
        let (dtype, shape, bytes) = resid(&store, hook);
        assert_eq!((dtype.as_str(), shape), ("F32", vec![row_start, width]), "{hook}");
        assert!(floats(&bytes).iter().all(|value| value.is_finite()), "{hook}");
    }
    check_sums(&store);
    let report = run(dir.path(), "store verify s --json").ok().json();
    assert_eq!(
        report,
        json!({ "state": "finished", "files": 9, "bytes": report["bytes"], "clips": 6, "problems": [] })
    );
    let leftovers: Vec<_> =
        tree(&store).into_keys().filter(|name| name.contains("/.") || name.starts_with('.')).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn codes(store: &Path, row: &Value) -> (String, Vec<usize>, Vec<u8>) {
    let shard = row["shard"].as_u64().expect("a number");
    let clip = row["clip_id"].as_str().expect("a name");
    tensor(&store.join(format!("codes/{shard:05}.safetensors")), &format!("codes/{clip}"))
}

/// Start, end and whether it is partial, of each clip that `options` make of 2 s of audio.
fn cuts(options: &str) -> Vec<(f64, f64, bool)> {
    let dir = folder();
    run(dir.path(), &format!("capture FIX/mono_32k.mp3 --model MODEL --hooks embed --out s {options}")).ok();
    let rows = index(&dir.path().join("s"));
    let seconds = |row: &Value, key: &str| row[key].as_f64().expect("a number");
    rows.iter()
        .map(|row| (seconds(row, "start_seconds"), seconds(row, "end_seconds"), row["partial"] == true))
        .collect()
}

fn windows_stride_and_ranges_cut_where_they_say() {
    let whole = |start, end| (start, end, false);
    let short = |start, end| (start, end, true);
    for (options, expected) in [
        ("--window 0.75", vec![whole(0.0, 0.75), whole(0.75, 1.5), short(1.5, 2.0)]),
        ("--window 0.75 --drop-last", vec![whole(0.0, 0.75), whole(0.75, 1.5)]),
        ("--window 0.75 --limit 2", vec![whole(0.0, 0.75), whole(0.75, 1.5)]),
        ("--window 0.5 --stride 1", vec![whole(0.0, 0.5), whole(1.0, 1.5)]),
        ("--window 1 --stride 0.5 --drop-last", vec![whole(0.0, 1.0), whole(0.5, 1.5), whole(1.0, 2.0)]),
        ("--start 0.25 --duration 1 --window 0.5", vec![whole(0.25, 0.75), whole(0.75, 1.25)]),
        ("--start 1.5", vec![whole(1.5, 2.0)]),
        ("--duration 0.5", vec![whole(0.0, 0.5)]),
    ] {
        assert_eq!(cuts(options), expected, "{options}");
    }
}

fn whole_files_are_one_clip() {
    let dir = folder();
    // the trained length to the sample, and one beyond it
    let exact = vec![0_i16; 30 * 8_000];
    fs::write(dir.path().join("exact.wav"), crate::support::wav(1, 8_000, &exact)).expect("a new file");
    let beyond = vec![0_i16; 30 * 8_000 + 1];
    fs::write(dir.path().join("beyond.wav"), crate::support::wav(1, 8_000, &beyond)).expect("a new file");
    run(dir.path(), "capture exact.wav --model MODEL --hooks embed --out exact").ok();
    assert_eq!(index(&dir.path().join("exact"))[0]["positions"], 1_501);
    run(dir.path(), "capture beyond.wav --model MODEL --hooks embed --out beyond")
        .exits(3, &["beyond.wav", "--window", "30"]);
    assert!(!dir.path().join("beyond").exists());
    run(dir.path(), "capture beyond.wav --model MODEL --hooks embed --out beyond --window 30").ok();
    assert_eq!(index(&dir.path().join("beyond")).len(), 2, "one sample is a clip too");
}

fn smaller_types_are_rounded_from_f32() {
    let dir = folder();
    for dtype in ["f32", "f16", "bf16"] {
        let line = format!(
            "capture FIX/flac_s16.flac --model MODEL --hooks layers.1.resid_mid --out {dtype} --dtype {dtype}"
        );
        run(dir.path(), &line).ok();
        run(dir.path(), &format!("store verify {dtype}")).ok();
    }
    let read = |dtype: &str| resid(&dir.path().join(dtype), "layers.1.resid_mid");
    let exact = floats(&read("f32").2);
    for (name, dtype, round) in [
        ("f16", "F16", (|x| f16::from_f32(x).to_bits()) as fn(f32) -> u16),
        ("bf16", "BF16", |x| bf16::from_f32(x).to_bits()),
    ] {
        let (found, shape, bytes) = read(name);
        assert_eq!((found.as_str(), shape), (dtype, vec![64, 128]));
        let bits: Vec<u16> = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        let expected: Vec<u16> = exact.iter().map(|&x| round(x)).collect();
        assert!(bits == expected, "{name} is the f32 value, rounded to nearest");
    }
}

fn aliases_are_the_sites_they_name() {
    let dir = folder();
    let line = |hooks: &str, out: &str| {
        format!("capture FIX/flac_s16.flac --model MODEL --hooks {hooks} --out {out}")
    };
    run(dir.path(), &line("paper:{2,3}", "paper")).ok();
    run(dir.path(), &line("hook_layers.1,hook_layers.2", "hook")).ok();
    run(dir.path(), &line("layers.{1,2}.resid_post", "site")).ok();
    let sites = |store: &str| json_file(&dir.path().join(store).join("store.json"))["sites"].clone();
    assert_eq!(sites("paper"), sites("hook"), "`paper:M` is stored as `hook_layers.(M-1)`");
    assert_eq!(
        sites("hook")[0],
        json!({ "hook": "hook_layers.1", "site": "layers.1.resid_post", "width": 128 })
    );
    for layer in [1, 2] {
        let read = |store: &str, hook: String| resid(&dir.path().join(store), &hook);
        let hook = read("hook", format!("hook_layers.{layer}"));
        assert!(hook == read("paper", format!("hook_layers.{layer}")));
        assert!(hook == read("site", format!("layers.{layer}.resid_post")));
    }
    for hooks in ["hook_layers.1,paper:2", "embed,embed", "layers.0.resid_post,hook_layers.0"] {
        run(dir.path(), &line(hooks, "twice")).exits(2, &["each site once"]);
    }
    // what one layer leaves is what the next one finds
    run(dir.path(), &line("embed,layers.{0,1,2}.resid_pre,layers.{0,1,2}.resid_post", "chain")).ok();
    let read = |hook: &str| resid(&dir.path().join("chain"), hook).2;
    for (after, before) in [
        ("embed", "layers.0.resid_pre"),
        ("layers.0.resid_post", "layers.1.resid_pre"),
        ("layers.1.resid_post", "layers.2.resid_pre"),
    ] {
        assert!(read(after) == read(before), "{after} and {before}");
    }
    assert!(read("layers.1.resid_post") != read("layers.2.resid_post"));
}

fn posembs_differ() {
    let dir = folder();
    let modes = ["f32", "audiocraft-f16", "audiocraft-f16-autocast"];
    let mut stored = BTreeMap::new();
    for mode in modes {
        let line =
            format!("capture FIX/mono_32k.mp3 --model MODEL --hooks embed --out {mode} --posemb {mode}");
        run(dir.path(), &line).ok();
        let store = dir.path().join(mode);
        assert_eq!(json_file(&store.join("store.json"))["posemb"], mode);
        stored.insert(mode, floats(&resid(&store, "embed").2));
    }
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let (a, b) = (&stored[modes[a]], &stored[modes[b]]);
        let largest = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(largest > 0.0, "the modes are not one and the same");
        // sines and cosines of positions, added to an embedding
        assert!(largest <= 2.0, "{largest}");
    }
    run(dir.path(), "capture FIX/mono_32k.mp3 --model MODEL --hooks embed --out x --posemb f64")
        .exits(2, &["f64"]);
}

/// What the decoder makes of a store's codes when it is told `text`, clip after clip.
fn told(store: &Path, text: &str, site: &str) -> Vec<f32> {
    let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(None).expect("the host has a processor"));
    let texts = TextEncoder::open(model(), cpu.clone()).expect("a whole checkpoint");
    let text = texts.texts(&[text], TextPad::Mask).expect("a text").remove(0);
    let decoder = Decoder::open(model(), cpu, &DecoderOptions::default()).expect("a whole checkpoint");
    let mut values = Vec::new();
    for row in index(store) {
        let (_, shape, bytes) = codes(store, &row);
        let stored = bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])));
        let clip = Codes::new(shape[0], shape[1], stored.collect()).expect("whole codebooks");
        let mut edits = Edits::new();
        edits.capture(site, DType::F32);
        let pass = decoder.teacher_forced_with_text(1, shape[1], text.tokens(), edits).expect("a pass");
        pass.run_with_texts(&[clip], &[Some(&text)]).expect("a run");
        values.extend(pass.output_f32(site).expect("captured"));
    }
    values
}

fn a_text_is_attended_to() {
    let dir = folder();
    let line = "capture FIX/flac_s16.flac --model MODEL --window 0.5 --hooks layers.0.self_attn_out,layers.0.cross_attn_out,\
                hook_layers.2";
    run(dir.path(), &format!("{line} --out plain")).ok();
    let (jazz, plain) = (dir.path().join("jazz"), dir.path().join("plain"));
    let mut ran = command(dir.path(), &format!("{line} --batch 2 --out jazz --text"));
    finished("capture --text", ran.arg("slow jazz with brushes")).ok();
    assert_eq!(json_file(&jazz.join("store.json"))["text"], "slow jazz with brushes");
    assert_eq!(json_file(&plain.join("store.json"))["text"], Value::Null);
    let models = json_file(&jazz.join("run.json"))["models"].clone();
    let models: Vec<&str> =
        models.as_array().expect("files").iter().map(|f| f["path"].as_str().expect("a path")).collect();
    assert!(models.iter().any(|path| path.ends_with("tokenizer.json")), "{models:?}");
    run(dir.path(), "store verify jazz").ok();

    let site = |store: &Path, site: &str| floats(&resid(store, site).2);
    let before = "layers.0.self_attn_out";
    assert!(site(&jazz, before) == site(&plain, before), "nothing is told before cross-attention");
    assert!(site(&plain, "layers.0.cross_attn_out").iter().all(|&v| v == 0.0), "no text adds nothing");
    assert!(site(&jazz, "layers.0.cross_attn_out").iter().any(|&v| v != 0.0));
    assert!(site(&jazz, "hook_layers.2") != site(&plain, "hook_layers.2"));
    assert!(site(&jazz, "hook_layers.2") == told(&jazz, "slow jazz with brushes", "hook_layers.2"));

    // a store is of one text: another one does not go on with it, nor none
    for text in [&["--text", "folk"][..], &[]] {
        let mut ran = command(dir.path(), &format!("{line} --batch 2 --out jazz --resume"));
        finished("another text", ran.args(text)).exits(2, &["store `jazz`", "`text`", "store.json"]);
    }
}

fn bad_texts_are_refused() {
    let dir = folder();
    let bare = dir.path().join("bare");
    fs::create_dir(&bare).expect("a new folder");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model().join(name), bare.join(name)).expect("a copy");
    }
    let long = "x ".repeat(600);
    for (model, text, code, parts) in [
        ("MODEL", "", 2, &["`--text` is empty, expected words"][..]),
        ("MODEL", " ", 2, &["`--text` is empty, expected words"]),
        ("MODEL", &long, 3, &["`--text` cannot be encoded", "1201 tokens, expected at most 512"]),
        ("bare", "jazz", 3, &["neither tokenizer.json nor spiece.model"]),
    ] {
        let line = format!("capture FIX/flac_s16.flac --model {model} --hooks embed --out s --text");
        finished(&line, command(dir.path(), &line).arg(text)).exits(code, parts);
        assert_eq!(names(dir.path()), ["bare"], "{line} {text:?}");
    }
}

fn batches_do_not_change_the_result() {
    let dir = folder();
    let line = "capture FIX/stereo_vbr_44k.mp3 FIX/mono_32k.mp3 --model MODEL --window 0.3 --hooks hook_layers.2,logits";
    for batch in ["1", "3", "auto"] {
        run(dir.path(), &format!("{line} --batch {batch} --out {batch}")).ok();
    }
    let one = dir.path().join("1");
    for batch in ["3", "auto"] {
        let other = dir.path().join(batch);
        assert_eq!(index(&one), index(&other));
        for name in ["codes", "hook_layers.2", "logits"] {
            let file = |store: &Path| fs::read(store.join(name).join("00000.safetensors")).expect("a shard");
            // not only close: sums of a row are taken in the same order whatever else is in the batch
            assert!(file(&one) == file(&other), "{name}: bits differ between --batch 1 and --batch {batch}");
        }
    }
    for batch in ["0", "-1", "many"] {
        let ran = run(dir.path(), &format!("{line} --out x --batch={batch}"));
        ran.exits(2, &[batch]);
    }
}

fn manifests_name_tracks_and_promise_hashes() {
    let dir = folder();
    let root = dir.path().join("audio/sub");
    fs::create_dir_all(&root).expect("new folders");
    fs::copy(fixture("flac_s16.flac"), root.join("a.flac")).expect("a copy");
    fs::copy(fixture("mono_32k.mp3"), root.join("b.mp3")).expect("a copy");
    let sha = hash(&fs::read(fixture("flac_s16.flac")).expect("the fixture"));
    let write = |sha: &str| {
        let rows = [
            json!({ "track_id": "first", "audio_path": "sub/a.flac", "sha256": sha, "mood": "calm" }),
            json!({
                "track_id": "second", "audio_path": "sub/b.mp3",
                "windows": [{ "start_seconds": 0.5, "end_seconds": 1.0 }, { "start_seconds": 0, "end_seconds": 0.25 }],
            }),
        ];
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(dir.path().join("m.jsonl"), text).expect("a file");
    };
    let line = "capture --manifest m.jsonl --audio-root audio --model MODEL --hooks embed --out";
    write(&sha);
    run(dir.path(), &format!("{line} good")).ok();
    let rows = index(&dir.path().join("good"));
    let clips: Vec<_> = rows.iter().map(|row| row["clip_id"].as_str().expect("a name")).collect();
    assert_eq!(clips, ["first@0-40001", "second@16000-32000", "second@0-8000"]);
    assert_eq!(rows[0]["audio_path"], "sub/a.flac", "as the manifest names it");
    let record = json_file(&dir.path().join("good/run.json"));
    let manifest = fs::read(dir.path().join("m.jsonl")).expect("just written");
    let listed =
        record["inputs"].as_array().expect("a list").iter().any(|file| file["sha256"] == hash(&manifest));
    assert!(listed, "the manifest's own hash is recorded: {record}");

    let wrong = format!("{:0>64}", "1");
    write(&wrong);
    run(dir.path(), &format!("{line} bad")).exits(4, &["a.flac", &sha, &wrong, "manifest"]);
    assert!(!dir.path().join("bad").exists());
    for (text, parts) in [
        ("", &["m.jsonl", "at least one row"][..]),
        ("{\n", &["m.jsonl, line 1", "JSON object"]),
        (r#"{"track_id":"a","audio_path":"../x.wav"}"#, &["line 1", "`audio_path`", "without `..`"]),
        (r#"{"track_id":"a"}"#, &["line 1", "`audio_path`", "absent"]),
    ] {
        fs::write(dir.path().join("m.jsonl"), text).expect("a file");
        run(dir.path(), &format!("{line} bad")).exits(3, parts);
        assert!(!dir.path().join("bad").exists());
    }
    run(dir.path(), "capture --manifest m.jsonl --model MODEL --hooks embed --out bad")
        .exits(2, &["--audio-root"]);
    let both = "capture x.wav --manifest m.jsonl --audio-root audio --model MODEL --hooks embed --out bad";
    run(dir.path(), both).exits(2, &["--manifest"]);
}

fn stdout_is_the_result_and_nothing_else() {
    let dir = folder();
    let line = "capture FIX/flac_s16.flac FIX/pcm_u8.wav --model MODEL --window 0.5 --hooks embed";
    let ran = run(dir.path(), &format!("{line} --json --out a")).ok();
    let summary = ran.json();
    assert_eq!(ran.stdout.lines().count(), 1);
    assert_eq!(
        (&summary["outcome"], &summary["clips"], &summary["failed"]),
        (&json!("finished"), &json!(6), &json!([]))
    );
    assert_eq!(summary["store"], "a");
    assert_eq!(summary["positions"], 6 * 26 - 12, "one clip of 13 frames among those of 25");
    for stage in ["hash", "decode", "encode", "lm", "write"] {
        assert!(
            summary["stages"][stage].as_f64().is_some_and(|seconds| seconds >= 0.0),
            "{stage}: {summary}"
        );
    }
    assert!(ran.stderr.contains("device cpu"), "the choice of device is told\n{ran}");
    assert!(!ran.stderr.contains('\r') && !ran.stderr.contains('\u{1b}'), "bars only on a terminal\n{ran}");
    let text = run(dir.path(), &format!("{line} --out b")).ok();
    assert!(text.stdout.contains("6 clips") && text.stdout.contains("a second"), "{text}");
    let quiet = run(dir.path(), &format!("{line} --quiet --out c")).ok();
    assert!(quiet.stderr.is_empty() && !quiet.stdout.is_empty(), "{quiet}");
    for options in ["--json", "--json --quiet"] {
        let failed =
            run(dir.path(), &format!("capture absent.wav --model MODEL --hooks embed --out d {options}"));
        let failed = failed.exits(3, &["absent.wav"]);
        assert!(failed.stdout.is_empty(), "{failed}");
    }
}

fn run_json_says_how_to_do_it_again() {
    let dir = folder();
    run(dir.path(), "--threads 1 capture FIX/flac_s16.flac --model MODEL --hooks embed --out s --dtype f16")
        .ok();
    let record = json_file(&dir.path().join("s/run.json"));
    assert_eq!((&record["format"], &record["version"]), (&json!(1), &json!(env!("CARGO_PKG_VERSION"))));
    let commit = record["git_commit"].as_str().expect("a commit, or `unknown`");
    assert!(
        commit == "unknown" || (commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit())),
        "{commit}"
    );
    let words: Vec<_> =
        record["command"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
    let expected = ["--threads", "1", "capture"];
    assert!(words.windows(3).any(|part| part == expected), "{words:?}");
    assert_eq!(words.len(), 15, "the program, two words for the device and those above: {words:?}");
    let directory = fs::canonicalize(record["directory"].as_str().expect("a path")).expect("it is there");
    assert_eq!(directory, fs::canonicalize(dir.path()).expect("it is there"));
    assert_eq!(record["seed"], Value::Null, "nothing here is random");
    assert_eq!((&record["device"]["id"], &record["precision"]), (&json!("cpu"), &json!("f32")));
    assert_eq!(record["threads"], 1);
    for (model_file, name) in
        record["models"].as_array().expect("a list").iter().zip(["config.json", "model.safetensors"])
    {
        let path = model().join(name);
        let bytes = fs::read(&path).expect("the shared checkpoint");
        assert_eq!(model_file, &json!({ "path": path, "bytes": bytes.len(), "sha256": hash(&bytes) }));
    }
    assert_eq!(record["models"].as_array().map(Vec::len), Some(2));
    let input = &record["inputs"][0];
    assert_eq!(input["sha256"], hash(&fs::read(fixture("flac_s16.flac")).expect("the fixture")));
    assert_eq!((&input["audio"]["codec"], &input["audio"]["sample_rate"]), (&json!("flac"), &json!(22_050)));
    for key in ["started", "finished"] {
        let time = record[key].as_str().expect("a time");
        assert!(
            time.ends_with('Z') && time.as_bytes()[10] == b'T',
            "{key} is {time}, expected RFC 3339 in UTC"
        );
    }
    assert_eq!(record["details"]["clips"], 1);
}

fn a_run_is_the_same_twice() {
    let dir = folder();
    let line = "capture FIX/alac.m4a FIX/vorbis_44k.ogg --model MODEL --window 0.5 --hooks hook_layers.{0,1,2} --out";
    run(dir.path(), &format!("{line} a")).ok();
    run(dir.path(), &format!("{line} b --threads 1")).ok();
    let stored = |name: &str| {
        let mut files = tree(&dir.path().join(name));
        // times, and the threads that the device's name tells
        for name in ["run.json", "SHA256SUMS", "store.json"] {
            files.remove(name).expect("it is there");
        }
        files
    };
    assert!(stored("a") == stored("b"), "neither the clock nor the number of threads changes a bit");
}

fn bad_files_are_left_out_and_listed() {
    let dir = folder();
    music(&dir.path().join("good.wav"), 0.5, 16_000, 1);
    fs::write(dir.path().join("empty.mp3"), b"").expect("a new file");
    let flac = fs::read(fixture("flac_s16.flac")).expect("the fixture");
    fs::write(dir.path().join("cut.flac"), &flac[..flac.len() / 2]).expect("a new file");
    let line = "capture good.wav empty.mp3 cut.flac absent.ogg FIX/pcm_u8.wav --model MODEL --hooks embed --json --out s";
    let ran =
        run(dir.path(), line).exits(1, &["3 of the inputs failed", "empty.mp3", "cut.flac", "absent.ogg"]);
    let summary = ran.json();
    assert_eq!(summary["clips"], 2);
    let failed: Vec<_> =
        summary["failed"].as_array().expect("a list").iter().map(|f| f["audio_path"].clone()).collect();
    assert_eq!(failed, ["empty.mp3", "cut.flac", "absent.ogg"]);
    let store = dir.path().join("s");
    let tracks: Vec<_> = index(&store).iter().map(|row| row["track_id"].clone()).collect();
    assert_eq!(tracks.len(), 2);
    check_sums(&store);
    run(dir.path(), "store verify s").ok();
    let record = json_file(&store.join("run.json"));
    assert_eq!(record["details"]["failed"], summary["failed"]);
    let quiet = run(dir.path(), &line.replace("--json --out s", "--quiet --out q"));
    quiet.exits(1, &["empty.mp3", "cut.flac", "absent.ogg"]);
    assert_eq!(names(&store), names(&dir.path().join("q")));
}

/// One capture on an adapter, held against the processor's.
pub fn on_an_adapter(listing: bool) -> Vec<Trial> {
    let dir = folder();
    let looks = "--device wgpu doctor --no-self-test --no-rates --quiet";
    let found = !listing && finished(looks, &mut command(dir.path(), looks)).code == Some(0);
    let required = std::env::var("AUSCULT_REQUIRE_WGPU").is_ok_and(|value| value == "1");
    if found || listing {
        return vec![
            Trial::test("capture::wgpu_agrees_with_cpu", || {
                wgpu_agrees_with_cpu();
                Ok(())
            }),
            Trial::test("capture_sae::features_of_an_adapter_are_those_of_its_rows", || {
                features_of_an_adapter_are_those_of_its_rows();
                Ok(())
            }),
            Trial::test("sae::rows_that_are_not_finite_are_marked_on_an_adapter", || {
                not_finite_rows_are_marked_on("wgpu");
                Ok(())
            }),
        ];
    }
    let missing = || Err("needs a wgpu adapter: a GPU driver, or mesa-vulkan-drivers".into());
    vec![Trial::test("capture::wgpu (needs an adapter)", missing).with_ignored_flag(!required)]
}

fn wgpu_agrees_with_cpu() {
    let dir = folder();
    let line = "capture FIX/flac_s16.flac --model MODEL --window 0.5 --hooks hook_layers.{0,2},logits --out";
    run(dir.path(), &format!("{line} cpu")).ok();
    let ran = run(dir.path(), &format!("--device wgpu {line} wgpu --json")).ok();
    assert_eq!(ran.json()["clips"], 3);
    run(dir.path(), "store verify wgpu").ok();
    let (cpu, wgpu) = (dir.path().join("cpu"), dir.path().join("wgpu"));
    let device = json_file(&wgpu.join("run.json"))["device"]["id"].clone();
    assert!(device.as_str().is_some_and(|id| id.starts_with("wgpu:")), "{device}");
    for row in index(&cpu) {
        assert!(codes(&cpu, &row) == codes(&wgpu, &row), "codes of {}", row["clip_id"]);
    }
    for hook in ["hook_layers.0", "hook_layers.2", "logits"] {
        let (want, got) = (floats(&resid(&cpu, hook).2), floats(&resid(&wgpu, hook).2));
        let rms = (want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / want.len() as f64).sqrt();
        for (at, (want, got)) in want.iter().zip(&got).enumerate() {
            // sums of some hundred terms in another order; the golden tests hold both closer, to the reference
            let error = f64::from((want - got).abs());
            assert!(error <= 1e-3 * rms, "{hook}[{at}]: {got}, expected {want}");
        }
    }
}
