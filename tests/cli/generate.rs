//! `generate`: what it writes, that it writes the same again, and what it refuses.

use crate::support::{Ran, command, floats, folder, json_file, music, names, run, tensor, tree};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

crate::trials!(
    takes_are_written_with_their_records,
    runs_repeat_whatever_the_batch,
    greedy_hears_no_noise,
    a_prompt_is_continued,
    long_takes_slide,
    a_file_has_its_record_beside_it,
    stereo_checkpoints_play_two_channels,
    prompts_have_lengths_of_their_own,
    bad_requests_are_refused_before_anything_is_written,
    a_killed_run_leaves_no_half_file,
);

/// The records of a run's takes.
pub fn takes(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("takes.jsonl")).expect("a finished run has one");
    text.lines().map(|line| serde_json::from_str(line).expect("a record is a JSON object")).collect()
}

/// Codes of a take: `[codebooks, frames]`, and the values.
pub fn codes(out: &Path, take: usize) -> (Vec<usize>, Vec<u32>) {
    codes_of(&out.join(format!("take-{take:03}.codes.safetensors")))
}

/// Those of a file.
fn codes_of(file: &Path) -> (Vec<usize>, Vec<u32>) {
    let (dtype, shape, bytes) = tensor(file, "codes");
    assert_eq!(dtype, "I32");
    (shape, bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes"))).collect())
}

/// Channels and samples of a 16-bit WAV file with a plain header.
fn samples(path: &Path) -> (u16, Vec<i16>) {
    let bytes = fs::read(path).expect("the file is there");
    let channels = u16::from_le_bytes([bytes[22], bytes[23]]);
    (channels, bytes[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect())
}

fn takes_are_written_with_their_records() {
    let dir = folder();
    let ran =
        run(dir.path(), "generate --model MODEL --seconds 0.6 --count 2 --seed 5 --float --json --out out")
            .ok();
    let out = dir.path().join("out");
    let expected = [
        "run.json",
        "take-000.codes.safetensors",
        "take-000.wav",
        "take-001.codes.safetensors",
        "take-001.wav",
        "takes.jsonl",
    ];
    assert_eq!(names(&out), expected);
    let records = takes(&out);
    assert_eq!(ran.json()["takes"], Value::from(records.clone()));
    for (number, record) in records.iter().enumerate() {
        let (shape, values) = codes(&out, number);
        assert_eq!(shape, [4, 30]);
        assert!(values.iter().all(|&code| code < 64), "the tiny model has 64 codes");
        let wav = fs::read(out.join(format!("take-{number:03}.wav"))).expect("it is there");
        let audio = floats(&wav[58..]);
        assert_eq!(audio.len(), 30 * 640);
        let peak = audio.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        assert_eq!(record["peak"].as_f64().map(|peak| peak as f32), Some(peak));
        assert_eq!((&record["seed"], &record["row"]), (&5.into(), &number.into()));
        assert_eq!(record["settings"]["top_k"], 250);
        assert_eq!(record["frames"], 30);
        assert_eq!(record["windows"][0]["frames"], serde_json::json!([0, 30]));
        assert_eq!(record["windows"][0]["text_in_sight"], false);
        assert!(record["loudness_lufs"].is_number() || peak < 1e-3, "{record}");
    }
    assert_ne!(codes(&out, 0), codes(&out, 1), "each take hears noise of its own");
    let record = json_file(&out.join("run.json"));
    assert_eq!(record["seed"], 5);
    assert_eq!(record["models"].as_array().map(Vec::len), Some(2), "{record}");
    assert!(record["finished"].is_string() && record["details"]["playing"]["times_real_time"].is_number());
    run(dir.path(), "codec decode out/take-001.codes.safetensors --model MODEL --float --out again.wav").ok();
    assert!(fs::read(dir.path().join("again.wav")).unwrap() == fs::read(out.join("take-001.wav")).unwrap());
}

fn runs_repeat_whatever_the_batch() {
    let dir = folder();
    let line = "generate --model MODEL --seconds 0.5 --count 4 --seed 9 --top-k 20 --top-p 0.9 --out";
    let mut found = Vec::new();
    for (out, batch) in [("a", ""), ("b", ""), ("c", "--batch 1"), ("d", "--batch 3")] {
        run(dir.path(), &format!("{line} {out} {batch}")).ok();
        let mut files = tree(&dir.path().join(out));
        files.remove("run.json").expect("a finished run has one");
        found.push(files);
    }
    assert!(found.iter().all(|files| *files == found[0]), "the same bytes, again and in any batch");
    run(
        dir.path(),
        "generate --model MODEL --seconds 0.5 --count 2 --seed 10 --top-k 20 --same-noise --out same",
    )
    .ok();
    let same = dir.path().join("same");
    assert_eq!(codes(&same, 0), codes(&same, 1));
    assert_ne!(codes(&same, 0), codes(&dir.path().join("a"), 0), "another seed, other noise");
}

fn greedy_hears_no_noise() {
    let dir = folder();
    for (out, seed) in [("a", 1), ("b", 2)] {
        run(dir.path(), &format!("generate --model MODEL --seconds 0.4 --greedy --seed {seed} --out {out}"))
            .ok();
    }
    assert_eq!(codes(&dir.path().join("a"), 0), codes(&dir.path().join("b"), 0));
}

fn a_prompt_is_continued() {
    let dir = folder();
    music(&dir.path().join("music.wav"), 1.0, 44_100, 4);
    let line = "generate --model MODEL --audio-prompt music.wav --prompt-seconds 0.4 --seconds 0.7";
    run(dir.path(), &format!("{line} --count 2 --out out")).ok();
    let out = dir.path().join("out");
    run(dir.path(), "codec encode music.wav --model MODEL --out music.safetensors").ok();
    // what the encoder makes of the first 0.4 s does not depend on what follows, but for the edge
    let (_, shape, bytes) = tensor(&dir.path().join("music.safetensors"), "codes");
    let whole: Vec<u32> =
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
    assert_eq!(shape, [4, 50]);
    let (made, other) = (codes(&out, 0), codes(&out, 1));
    assert_eq!(made.0, [4, 35]);
    for q in 0..4 {
        assert_eq!(made.1[q * 35..][..20], other.1[q * 35..][..20], "both continue the same codes");
    }
    assert_eq!(made.1[..8], whole[..8], "they are the file's");
    assert_ne!(made, other);
    let record = &takes(&out)[0];
    assert_eq!(record["prompt_frames"], 20);
    assert_eq!(record["windows"][0]["frames"], serde_json::json!([20, 35]));
    assert_eq!(record["windows"][0]["audio_prompt_in_sight"], true);
    let input = &json_file(&out.join("run.json"))["inputs"][0];
    assert_eq!((&input["path"], &input["audio"]["sample_rate"]), (&"music.wav".into(), &44_100.into()));
}

fn long_takes_slide() {
    let dir = folder();
    music(&dir.path().join("music.wav"), 0.2, 32_000, 4);
    let line = "generate --model MODEL --audio-prompt music.wav --window 0.5 --seconds 1.1 --out";
    run(dir.path(), &format!("{line} slid --context stride:0.3")).ok();
    let record = &takes(&dir.path().join("slid"))[0];
    let sights: Vec<[u64; 4]> = record["windows"]
        .as_array()
        .expect("windows")
        .iter()
        .map(|w| {
            [&w["frames"][0], &w["frames"][1], &w["sees_from"], &w["prompt_frames"]]
                .map(|v| v.as_u64().expect("a count"))
        })
        .collect();
    assert_eq!(sights, [[10, 25, 0, 10], [25, 40, 15, 0], [40, 55, 30, 0]]);
    assert_eq!(record["windows"][1]["audio_prompt_in_sight"], false);
    run(dir.path(), &format!("{line} full --context full"))
        .exits(2, &["`--window` is 25 frames", "55", "--context full"]);
    run(dir.path(), "generate --model MODEL --seconds 1.1 --context full --out full").ok();
    assert_eq!(takes(&dir.path().join("full"))[0]["windows"].as_array().map(Vec::len), Some(1));
}

fn a_file_has_its_record_beside_it() {
    let dir = folder();
    run(dir.path(), "generate --model MODEL --seconds 0.3 --out song.wav").ok();
    assert_eq!(names(dir.path()), ["song.wav", "song.wav.run.json"]);
    let record = json_file(&dir.path().join("song.wav.run.json"));
    assert_eq!(record["details"]["take"]["file"], "song.wav");
    assert_eq!(samples(&dir.path().join("song.wav")).1.len(), 15 * 640);
    let idle = run(dir.path(), "generate --model MODEL --seconds 0.3 --edit-window 0..1 --out idle.wav").ok();
    assert!(idle.stderr.contains("`--edit-window` changes nothing"), "{idle}");
    run(dir.path(), "generate --model MODEL --seconds 0.3 --count 2 --out song.wav")
        .exits(2, &["`--out`", "song.wav", "there are 2", "a directory"]);
}

/// Makes a stereo checkpoint of the tiny one: every table and head of a codebook twice, as `musicgen-stereo-*` have them.
fn stereo_checkpoint(dir: &Path) {
    fs::create_dir(dir).expect("a new folder");
    let model = crate::support::model();
    let mut config = json_file(&model.join("config.json"));
    let decoder = &mut config["decoder"];
    let codebooks = decoder["num_codebooks"].as_u64().expect("a count");
    decoder["num_codebooks"] = (2 * codebooks).into();
    decoder["audio_channels"] = 2.into();
    fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let bytes = fs::read(model.join("model.safetensors")).expect("the checkpoint is there");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a checkpoint");
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let parts = ["embed_tokens.", "lm_heads."]
            .into_iter()
            .find_map(|table| name.split_once(table).map(|(before, rest)| (before, table, rest)));
        match parts {
            Some((before, table, rest)) if name.starts_with("decoder.") => {
                let (number, rest) = rest.split_once('.').expect("a number and `weight`");
                let number: u64 = number.parse().expect("a number");
                for channel in 0..2 {
                    tensors.push((format!("{before}{table}{}.{rest}", 2 * number + channel), view.clone()));
                }
            }
            _ => tensors.push((name, view)),
        }
    }
    safetensors::serialize_to_file(tensors, None, &dir.join("model.safetensors")).expect("written");
}

fn stereo_checkpoints_play_two_channels() {
    let dir = folder();
    stereo_checkpoint(&dir.path().join("stereo"));
    run(dir.path(), "generate --model stereo --seconds 0.5 --seed 3 --out out").ok();
    let out = dir.path().join("out");
    let (shape, values) = codes(&out, 0);
    assert_eq!(shape, [8, 25]);
    let (channels, both) = samples(&out.join("take-000.wav"));
    assert_eq!((channels, both.len()), (2, 2 * 25 * 640));
    assert_eq!(takes(&out)[0]["channels"], 2);
    // each channel is the codec's output for every other codebook
    for channel in 0..2 {
        let own: Vec<u8> = values
            .chunks(25)
            .skip(channel)
            .step_by(2)
            .flatten()
            .flat_map(|code| code.to_le_bytes())
            .collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U32, vec![4, 25], &own).unwrap();
        safetensors::serialize_to_file([("codes", view)], None, &dir.path().join("c.safetensors")).unwrap();
        run(dir.path(), &format!("codec decode c.safetensors --model MODEL --out {channel}.wav")).ok();
        let alone = samples(&dir.path().join(format!("{channel}.wav"))).1;
        let woven: Vec<i16> = both.iter().skip(channel).step_by(2).copied().collect();
        assert!(woven == alone, "channel {channel}");
    }
    // the file that was written, by the checkpoint that wrote it
    let line = "codec decode out/take-000.codes.safetensors --model";
    run(dir.path(), &format!("{line} stereo --out again.wav")).ok();
    assert!(samples(&dir.path().join("again.wav")) == (2, both), "the same audio");
    run(dir.path(), &format!("{line} MODEL --out no.wav")).exits(3, &["8 codebooks", "expected 4"]);
    run(dir.path(), "codec encode again.wav --model stereo --out again.safetensors").ok();
    run(dir.path(), "codec decode again.safetensors --model stereo --out twice.flac").ok();
    let twice = fs::read(dir.path().join("twice.flac")).expect("it was written");
    assert_eq!(&twice[..4], b"fLaC");
    run(dir.path(), "codec decode again.safetensors --model stereo --out twice.mp3")
        .exits(2, &["`--out`", "mp3 is not written", ".flac"]);
    run(dir.path(), "codec decode again.safetensors --model stereo --float --out f.flac")
        .exits(2, &["`--float` with flac"]);
    let (shape, heard) = codes_of(&dir.path().join("again.safetensors"));
    assert_eq!(shape, [8, 25]);
    assert!(
        (0..4).any(|q| heard[2 * q * 25..][..25] != heard[(2 * q + 1) * 25..][..25]),
        "two channels were heard"
    );
    music(&dir.path().join("music.wav"), 0.3, 32_000, 4);
    run(dir.path(), "generate --model stereo --audio-prompt music.wav --seconds 0.5 --out continued").ok();
    let (_, values) = codes(&dir.path().join("continued"), 0);
    for q in 0..4 {
        let (left, right) = (&values[2 * q * 25..][..15], &values[(2 * q + 1) * 25..][..15]);
        assert_eq!(left, right, "a file of one channel is heard in both ears");
    }
}

fn bad_requests_are_refused_before_anything_is_written() {
    let dir = folder();
    music(&dir.path().join("music.wav"), 1.0, 32_000, 1);
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/notes.txt"), "mine").unwrap();
    fs::write(dir.path().join("noise.wav"), "no audio at all").unwrap();
    let before = names(dir.path());
    for (line, code, parts) in [
        ("--seconds 0", 2, &["`--seconds` is 0", "0.02 s"][..]),
        ("--seconds NaN", 2, &["`--seconds` is NaN"]),
        ("--seconds=-1", 2, &["`--seconds` is -1"]),
        ("--seconds 1e300", 2, &["`--seconds`", "expected"]),
        ("--seconds 1e7 --context full", 2, &["`--seconds`", "MB", "available"]),
        ("--seconds 1 --count 0", 2, &["--count"]),
        ("--seconds 1 --batch 0", 2, &["--batch", "at least 1"]),
        ("--seconds 1 --cfg -1", 2, &["`guidance` is -1"]),
        ("--seconds 1 --cfg NaN", 2, &["`guidance` is NaN"]),
        ("--seconds 1 --temperature 0", 2, &["`temperature` is 0", "above 0"]),
        ("--seconds 1 --temperature NaN", 2, &["`temperature` is NaN"]),
        ("--seconds 1 --top-p 1.5", 2, &["`top_p` is 1.5", "from 0 to 1"]),
        ("--seconds 1 --top-p -0.1", 2, &["`top_p` is -0.1"]),
        ("--seconds 1 --top-k=-1", 2, &["--top-k"]),
        ("--seconds 1 --context 18", 2, &["`18`", "stride:S"]),
        ("--seconds 1 --window 0.5", 2, &["`--context`", "900 frames", "1 to 24"]),
        ("--seconds 2 --prompt-seconds 1", 2, &["--audio-prompt"]),
        ("--seconds 1 --audio-prompt music.wav", 2, &["music.wav", "50 frames", "less than 50", "--seconds"]),
        (
            "--seconds 2 --window 0.5 --context stride:0.2 --audio-prompt music.wav",
            2,
            &["music.wav", "50 frames", "less than 25", "in sight"],
        ),
        ("--seconds 2 --audio-prompt music.wav --prompt-seconds NaN", 2, &["`--prompt-seconds` is NaN"]),
        ("--seconds 2 --audio-prompt music.wav --prompt-seconds 0", 2, &["`--prompt-seconds` is 0"]),
        ("--seconds 2 --audio-prompt noise.wav", 3, &["noise.wav"]),
        ("--seconds 2 --audio-prompt absent.wav", 3, &["absent.wav"]),
    ] {
        run(dir.path(), &format!("generate --model MODEL --out out {line}")).exits(code, parts);
    }
    run(dir.path(), "generate --model MODEL --seconds 1 --out full")
        .exits(2, &["`--out`", "full", "not empty", "notes.txt"]);
    run(dir.path(), "generate --model MODEL --seconds 1 --out song.mp3")
        .exits(2, &["`--out` is song.mp3", "mp3 is not written", ".wav or .flac"]);
    run(dir.path(), "generate --model absent --seconds 1 --out out").exits(3, &["absent"]);
    assert_eq!(names(dir.path()), before);
    assert_eq!(names(&dir.path().join("full")), ["notes.txt"]);
}

fn prompts_have_lengths_of_their_own() {
    let dir = folder();
    let lines = [
        json!({ "text": "slow strings" }),
        json!({ "text": "a short bell", "seconds": 0.3 }),
        json!({ "text": "drums", "seconds": 0.8 }),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(dir.path().join("prompts.jsonl"), lines).expect("written");
    let line = "generate --model MODEL --seconds 0.5 --seed 4 --prompts prompts.jsonl --out";
    run(dir.path(), &format!("{line} out --batch 2")).ok();
    let made = takes(&dir.path().join("out"));
    let frames: Vec<u64> = made.iter().map(|take| take["frames"].as_u64().expect("a count")).collect();
    assert_eq!(frames, [25, 15, 40]);
    // as many as the first take alone would be
    run(dir.path(), "generate --model MODEL --seconds 0.5 --seed 4 --text slow-strings --out alone").ok();
    assert_eq!(codes(&dir.path().join("alone"), 0).0, codes(&dir.path().join("out"), 0).0);
    for (text, code, parts) in [
        ("{\"text\": \"a\", \"second\": 1}", 3, ["line 1", "unknown field `second`"]),
        ("{\"text\": \"\"}", 3, ["line 1", "is empty"]),
        ("{\"text\": \"a\", \"seconds\": -1}", 3, ["`seconds` is -1", "expected"]),
        ("plain words", 3, ["line 1", "an object with `text`"]),
    ] {
        fs::write(dir.path().join("prompts.jsonl"), text).expect("written");
        run(dir.path(), &format!("{line} bad")).exits(code, &parts);
    }
}

fn a_killed_run_leaves_no_half_file() {
    let dir = folder();
    let line = "generate --model MODEL --seconds 1 --count 40 --seed 2 --batch 2 --out";
    run(dir.path(), &format!("{line} whole")).ok();
    let whole = tree(&dir.path().join("whole"));
    for moment in [1, 4, 9] {
        let out = dir.path().join(format!("killed-{moment}"));
        let mut killed = command(dir.path(), &format!("{line} killed-{moment}"));
        let mut child = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(120);
        while !out.join(format!("take-{moment:03}.wav")).exists() {
            assert!(Instant::now() < deadline, "no take {moment} within two minutes");
            sleep(Duration::from_millis(1));
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        let mut takes = 0;
        for (name, bytes) in tree(&out).iter().filter(|(name, _)| name.starts_with("take-")) {
            assert!(whole[name] == *bytes, "{name} is whole");
            takes += 1;
        }
        assert!(takes > moment, "{takes} files");
        let again: Ran = run(dir.path(), &format!("{line} killed-{moment}"));
        again.exits(2, &["not empty"]);
    }
}
