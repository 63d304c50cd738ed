//! `generate` from text, its captures with guidance, and FLAC.

use crate::generate::{codes, takes};
use crate::support::{
    check_sums, command, finished, floats, folder, index, json_file, music, names, resid, run,
};
use serde_json::json;
use std::fs;
use std::path::Path;

crate::trials!(
    texts_are_heard,
    prompts_of_a_file_play_side_by_side,
    padding_is_masked_or_attended_to,
    text_and_audio_go_together,
    bad_texts_are_refused_before_anything_is_written,
    captures_are_stores,
    guidance_rows_are_labelled,
    flac_holds_the_same_samples,
    a_take_is_heard_while_it_plays,
);

/// Runs `generate` with texts, which have blanks in them.
fn told(dir: &Path, line: &str, texts: &[&str]) {
    let line = format!("generate --model MODEL --seconds 0.4 {line}");
    let mut ran = command(dir, &line);
    for text in texts {
        ran.args(["--text", text]);
    }
    finished(&line, &mut ran).ok();
}

fn texts_are_heard() {
    let dir = folder();
    let out = |name: &str| dir.path().join(name);
    told(dir.path(), "--greedy --out drums", &["loud drums and bass"]);
    told(dir.path(), "--greedy --out flute", &["a flute, far away"]);
    told(dir.path(), "--greedy --cfg 1 --out unguided", &["loud drums and bass"]);
    told(dir.path(), "--greedy --cfg 0 --out against", &["loud drums and bass"]);
    told(dir.path(), "--greedy --out nothing", &[]);
    let all = ["drums", "flute", "unguided", "nothing"].map(|name| codes(&out(name), 0));
    for a in 0..all.len() {
        for b in 0..a {
            assert_ne!(all[a], all[b], "{a} and {b}");
        }
    }
    // a guidance of 0 leaves the scores of the row that is told nothing
    assert_eq!(codes(&out("against"), 0), all[3]);
    let record = &takes(&out("drums"))[0];
    assert_eq!((&record["text"], &record["settings"]["cfg"]), (&"loud drums and bass".into(), &3.0.into()));
    assert_eq!(record["windows"][0]["text_in_sight"], true);
    let models = json_file(&out("drums").join("run.json"))["models"].clone();
    let files: Vec<String> =
        models.as_array().expect("files").iter().map(|f| f["path"].to_string()).collect();
    assert!(files.len() == 3 && files.iter().any(|file| file.contains("token")), "{files:?}");
}

fn prompts_of_a_file_play_side_by_side() {
    let dir = folder();
    let texts =
        ["slow strings", "one very long prompt about a band that never stops to play its only song", "x"];
    fs::write(dir.path().join("prompts.txt"), texts.join("\n")).unwrap();
    told(dir.path(), "--seed 3 --count 2 --prompts prompts.txt --out out", &[]);
    told(dir.path(), "--seed 3 --count 2 --batch 1 --out again", &texts);
    let (out, again) = (dir.path().join("out"), dir.path().join("again"));
    let records = takes(&out);
    assert_eq!(records.len(), 6);
    for (number, record) in records.iter().enumerate() {
        assert_eq!((&record["text"], &record["row"]), (&texts[number / 2].into(), &number.into()));
        assert_eq!(codes(&out, number), codes(&again, number), "take {number} alone and side by side");
    }
    assert_ne!(records[0]["text_tokens"], records[2]["text_tokens"]);
    // a take's noise is that of its number, whatever the prompts before it are
    told(dir.path(), "--seed 3 --out alone", &texts[..1]);
    assert_eq!(codes(&dir.path().join("alone"), 0), codes(&out, 0));
    assert_eq!(json_file(&out.join("run.json"))["inputs"][0]["path"], "prompts.txt");
}

fn padding_is_masked_or_attended_to() {
    let dir = folder();
    let texts = ["short", "a longer one with many more words than the first"];
    for pad in ["mask", "attend"] {
        told(dir.path(), &format!("--greedy --text-pad {pad} --out {pad}"), &texts);
        told(dir.path(), &format!("--greedy --text-pad {pad} --out {pad}-alone"), &texts[..1]);
    }
    let of = |name: &str, take| codes(&dir.path().join(name), take);
    assert_eq!(of("mask", 0), of("mask-alone", 0), "a masked prompt does not depend on the others");
    assert_eq!(of("mask", 0), of("attend-alone", 0), "alone there is no padding");
    assert_ne!(of("mask", 0), of("attend", 0));
    assert_eq!(of("mask", 1), of("attend", 1), "the longest is not padded");
    let tokens = |name: &str, take: usize| takes(&dir.path().join(name))[take]["text_tokens"].clone();
    assert_eq!(tokens("attend", 0), tokens("attend", 1));
}

fn text_and_audio_go_together() {
    let dir = folder();
    music(&dir.path().join("music.wav"), 0.2, 32_000, 4);
    told(dir.path(), "--greedy --audio-prompt music.wav --out both", &["loud drums"]);
    told(dir.path(), "--greedy --audio-prompt music.wav --out audio", &[]);
    let [both, audio] = ["both", "audio"].map(|name| codes(&dir.path().join(name), 0));
    for q in 0..4 {
        assert_eq!(both.1[q * 20..][..10], audio.1[q * 20..][..10], "the prompt's codes");
    }
    assert_ne!(both, audio);
}

fn bad_texts_are_refused_before_anything_is_written() {
    let dir = folder();
    fs::write(dir.path().join("gap.txt"), "one\n\nthree\n").unwrap();
    fs::write(dir.path().join("latin.txt"), b"caf\xe9\n").unwrap();
    let before = names(dir.path());
    let refused = |texts: &[&str], rest: &str, code: i32, parts: &[&str]| {
        let line = format!("generate --model MODEL --seconds 0.4 --out out {rest}");
        let mut ran = command(dir.path(), &line);
        for text in texts {
            ran.args(["--text", text]);
        }
        finished(&line, &mut ran).exits(code, parts);
    };
    refused(&[""], "", 2, &["`--text` is empty"]);
    refused(&["music", "  "], "", 2, &["`--text` is empty"]);
    refused(&["music", &"many words ".repeat(2000)], "", 3, &["prompt 1", "tokens", "at most 512"]);
    refused(&["music"], "--text-pad both", 2, &["mask or attend"]);
    refused(&["music"], "--prompts gap.txt", 2, &["--prompts"]);
    refused(&[], "--prompts gap.txt", 3, &["gap.txt", "line 2 is empty"]);
    refused(&[], "--prompts latin.txt", 3, &["latin.txt", "UTF-8"]);
    refused(&[], "--prompts absent.txt", 3, &["absent.txt"]);
    assert_eq!(names(dir.path()), before);
}

fn captures_are_stores() {
    let dir = folder();
    let line = "generate --model MODEL --seconds 0.4 --count 3 --batch 2 --seed 6";
    run(dir.path(), &format!("{line} --out out --hooks paper:2,logits --capture store")).ok();
    run(dir.path(), &format!("{line} --out plain")).ok();
    run(dir.path(), "store verify store").ok();
    check_sums(&dir.path().join("store"));
    let (out, store) = (dir.path().join("out"), dir.path().join("store"));
    let rows = index(&store);
    assert_eq!(rows.len(), 3);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(codes(&out, number), codes(&dir.path().join("plain"), number), "looking changes nothing");
        assert_eq!(row["clip_id"], format!("take-{number:03}@0-12800"));
        assert_eq!((&row["positions"], &row["frames"]), (&21.into(), &20.into()));
        assert_eq!(row["audio_path"], format!("out/take-{number:03}.wav"));
        let (_, shape, bytes) = resid(&store, "logits");
        assert_eq!(shape, [63, 4 * 64]);
        assert!(floats(&bytes).iter().all(|x| x.is_finite()));
    }
    let meta = json_file(&store.join("store.json"));
    assert_eq!(meta["sites"][0]["hook"], "hook_layers.1");
    assert_eq!(meta["text"], json!(null));
    // a greedy take is what the captured scores say
    run(
        dir.path(),
        "generate --model MODEL --seconds 0.4 --greedy --out best --hooks logits --capture best.store",
    )
    .ok();
    let (shape, greedy) = codes(&dir.path().join("best"), 0);
    let (_, _, bytes) = resid(&dir.path().join("best.store"), "logits");
    let scores = floats(&bytes);
    for q in 0..shape[0] {
        for t in 0..shape[1] - q {
            // codebook q of frame t is chosen at position t + q
            let row = &scores[(t + q) * 256 + q * 64..][..64];
            let best = (0..64).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a))).unwrap_or_default();
            assert_eq!(greedy[q * shape[1] + t], best as u32, "codebook {q}, frame {t}");
        }
    }
}

fn guidance_rows_are_labelled() {
    let dir = folder();
    told(dir.path(), "--count 2 --out out --hooks hook_layers.2 --capture store", &["loud drums"]);
    run(dir.path(), "store verify store").ok();
    let store = dir.path().join("store");
    let clips: Vec<String> =
        index(&store).iter().map(|row| row["clip_id"].as_str().unwrap_or_default().to_string()).collect();
    let expected = ["take-000/cond", "take-000/uncond", "take-001/cond", "take-001/uncond"];
    assert_eq!(clips, expected.map(|track| format!("{track}@0-12800")));
    let (_, shape, bytes) = resid(&store, "hook_layers.2");
    assert_eq!(shape, [4 * 21, 128]);
    let rows: Vec<&[u8]> = bytes.chunks(21 * 128 * 4).collect();
    assert!(rows[0] != rows[1] && rows[0] != rows[2], "each row has its own");
    assert_eq!(rows[1][..512], rows[3][..512], "without text both begin alike");
    let record = json_file(&store.join("run.json"));
    let clip = &record["details"]["clips"][1];
    assert_eq!(
        (&clip["take"], &clip["rows"], &clip["text"]),
        (&0.into(), &"uncond".into(), &"loud drums".into())
    );
    run(dir.path(), "store export store --npy --out npy").ok();
    assert!(dir.path().join("npy/take-001/uncond/hook_layers.2.residual.npy").is_file());
}

fn flac_holds_the_same_samples() {
    let dir = folder();
    let line = "generate --model MODEL --seconds 0.5 --seed 8";
    run(dir.path(), &format!("{line} --out a.flac")).ok();
    run(dir.path(), &format!("{line} --out a.wav")).ok();
    run(dir.path(), &format!("{line} --format flac --count 2 --out out")).ok();
    let load = |name: &str| auscult_audio::load(dir.path().join(name), 32_000).expect("it is read");
    let wav = load("a.wav");
    assert_eq!(wav.len(), 25 * 640);
    assert!(load("a.flac") == wav && load("out/take-000.flac") == wav);
    assert_eq!(takes(&dir.path().join("out"))[1]["file"], "take-001.flac");
    run(dir.path(), &format!("{line} --format wav --out b.flac")).exits(2, &["`--format` is wav", "b.flac"]);
    run(dir.path(), &format!("{line} --float --out b.flac")).exits(2, &["`--float`", "flac"]);
}

fn a_take_is_heard_while_it_plays() {
    let dir = folder();
    // three pieces, and four windows
    let line =
        "generate --model MODEL --seconds 5 --window 2 --context stride:1 --seed 2 --stream --out a.wav";
    let output = command(dir.path(), line).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = fs::read(dir.path().join("a.wav")).expect("it is there");
    assert_eq!(output.stdout.len(), file.len());
    assert_eq!(output.stdout[..44], file[..44], "the header");
    let samples = |bytes: &[u8]| {
        bytes[44..].chunks_exact(2).map(|b| i32::from(i16::from_le_bytes([b[0], b[1]]))).collect::<Vec<_>>()
    };
    for (i, (heard, kept)) in samples(&output.stdout).into_iter().zip(samples(&file)).enumerate() {
        // f32 sums over other lengths, rounded to 16 bits
        assert!((heard - kept).abs() <= 1, "sample {i}: {heard}, {kept} in the file");
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("a.wav: 5.00 s"), "{text}");
    let refused = |rest: &str, parts: &[&str]| {
        run(dir.path(), &format!("generate --model MODEL --seconds 1 --stream {rest}")).exits(2, parts);
    };
    refused("--out b.wav --json", &["`--stream` and `--json`"]);
    refused("--out out --count 2", &["`--stream` with 2 takes"]);
}
