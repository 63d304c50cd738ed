//! `generate --melody`: takes of a MusicGen Melody, and what others refuse.

use crate::generate::{codes, takes};
use crate::support::{command, finished, folder, index, json_file, music, names, run, wav};
use auscult_audio::chroma::{Chroma, RATE};
use auscult_model::init::{InitOptions, Preset, init_checkpoint};
use auscult_model::musicgen::config::{MelodyConfig, MusicgenConfig};
use auscult_model::musicgen::generate::{
    Context, Event, Generator, GeneratorOptions, Melody, Sampling, Take,
};
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_runtime::CpuBackend;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;

crate::trials!(
    every_take_follows_the_file,
    the_command_plays_what_the_library_plays,
    text_alone_plays,
    a_melody_is_guided,
    bad_melodies_are_refused_before_anything_is_written,
);

/// A tiny MusicGen Melody, two seconds of chroma in front of its columns.
fn checkpoint(dir: &Path) {
    let melody = Some(MelodyConfig { chroma_length: 16, ..MelodyConfig::default() });
    let config = MusicgenConfig { melody, ..Preset::Tiny.config() };
    let options = InitOptions { seed: 5, ..InitOptions::default() };
    init_checkpoint(&config, options, &dir.join("melody"), &mut |_, _| {}).expect("it is written");
}

/// Runs `generate` with the checkpoint, and a text that has blanks in it.
fn played(dir: &Path, line: &str, text: Option<&str>) {
    let line = format!("generate --model melody --seconds 0.4 --greedy {line}");
    let mut ran = command(dir, &line);
    if let Some(text) = text {
        ran.args(["--text", text]);
    }
    finished(&line, &mut ran).ok();
}

fn every_take_follows_the_file() {
    let dir = folder();
    checkpoint(dir.path());
    fs::create_dir(dir.path().join("stems")).expect("a new folder");
    music(&dir.path().join("stems/one.wav"), 2.0, 44_100, 1);
    music(&dir.path().join("two.wav"), 2.0, 44_100, 2);
    played(dir.path(), "--melody stems/one.wav --count 2 --out one", Some("slow strings"));
    played(dir.path(), "--melody two.wav --out two", Some("slow strings"));
    played(dir.path(), "--out neither", Some("slow strings"));
    let out = |name: &str| dir.path().join(name);
    let [one, two, neither] = ["one", "two", "neither"].map(|name| codes(&out(name), 0));
    assert!(one != two && one != neither && two != neither, "each hears its own");
    assert_eq!(codes(&out("one"), 1), one, "greedy takes of one melody are one");
    for record in takes(&out("one")) {
        assert_eq!((&record["melody"], &record["text"]), (&"one.wav".into(), &"slow strings".into()));
    }
    assert_eq!(takes(&out("neither"))[0].get("melody"), Some(&Value::Null));
    let inputs = json_file(&out("one").join("run.json"))["inputs"].clone();
    assert_eq!(inputs.as_array().map(Vec::len), Some(1), "{inputs}");
    assert_eq!(inputs[0]["path"], "stems/one.wav");
    assert_eq!(inputs[0]["audio"]["sample_rate"], 44_100);
    assert_eq!(inputs[0]["sha256"].as_str().map(str::len), Some(64));
}

fn the_command_plays_what_the_library_plays() {
    let dir = folder();
    checkpoint(dir.path());
    music(&dir.path().join("music.wav"), 1.5, 44_100, 3);
    // the melody moves on with the window
    let line = "--melody music.wav --seconds 1.2 --window 0.6 --context stride:0.3 --out out";
    run(dir.path(), &format!("generate --model melody --greedy {line}")).ok();
    let samples = auscult_audio::load(dir.path().join("music.wav"), RATE).expect("it is read");
    let classes = Chroma::new().classes(&samples).expect("finite samples");
    let melody = Melody::new(classes, Chroma::frames_per_second()).expect("a melody");
    let backend = Arc::new(CpuBackend::new(None).expect("the processor"));
    let decoder = Decoder::open(&dir.path().join("melody"), backend, &DecoderOptions::default())
        .expect("the checkpoint opens");
    let take = Take {
        text: None,
        melody: Some(Arc::new(melody)),
        prompt: None,
        frames: 60,
        seed: 0,
        row: 0,
        sampling: Sampling { greedy: true, ..Sampling::default() },
        edits: Vec::new(),
    };
    let takes = [take];
    let options = GeneratorOptions { window: Some(30), ..GeneratorOptions::default() };
    let mut generator = Generator::new(&decoder, &takes, &options).expect("it is made");
    let mut made = Vec::new();
    let mut keep = |event: Event<'_>| {
        if let Event::Finished { generated, .. } = event {
            made = generated.codes.values().to_vec();
        }
        Ok::<(), auscult_model::ModelError>(())
    };
    generator.play(&takes, Context::Stride(15), 50, &mut keep).expect("it plays");
    assert_eq!(codes(&dir.path().join("out"), 0), (vec![4, 60], made));
}

fn text_alone_plays() {
    let dir = folder();
    checkpoint(dir.path());
    for (out, text) in
        [("drums", Some("loud drums")), ("flute", Some("a flute, far away")), ("nothing", None)]
    {
        played(dir.path(), &format!("--out {out}"), text);
    }
    let [drums, flute, nothing] = ["drums", "flute", "nothing"].map(|name| codes(&dir.path().join(name), 0));
    assert_eq!(drums.0, [4, 20]);
    assert!(drums != flute && drums != nothing && flute != nothing, "texts are heard");
}

fn a_melody_is_guided() {
    let dir = folder();
    checkpoint(dir.path());
    music(&dir.path().join("music.wav"), 2.0, 32_000, 4);
    let line = "--melody music.wav";
    played(dir.path(), &format!("{line} --out out --hooks hook_layers.1 --capture store"), None);
    played(dir.path(), &format!("{line} --cfg 1 --out unguided"), None);
    played(dir.path(), &format!("{line} --zero hook_layers.1 --edit-rows uncond --out edited"), None);
    let [guided, unguided, edited] =
        ["out", "unguided", "edited"].map(|name| codes(&dir.path().join(name), 0));
    assert!(guided != unguided && guided != edited, "there are rows that hear no melody");
    let store = dir.path().join("store");
    let tracks: Vec<Value> = index(&store).iter().map(|row| row["track_id"].clone()).collect();
    assert_eq!(tracks, ["take-000/cond", "take-000/uncond"]);
    assert_eq!(json_file(&store.join("run.json"))["details"]["clips"][0]["melody"], "music.wav");
    let line = "generate --model melody --seconds 0.4 --melody music.wav --cfg 1 --out out2";
    run(dir.path(), &format!("{line} --zero hook_layers.1 --edit-rows uncond"))
        .exits(2, &["`--edit-rows` is uncond", "a melody"]);
}

fn bad_melodies_are_refused_before_anything_is_written() {
    let dir = folder();
    checkpoint(dir.path());
    music(&dir.path().join("music.wav"), 1.0, 32_000, 1);
    fs::write(dir.path().join("noise.wav"), "no audio at all").expect("written");
    fs::write(dir.path().join("empty.wav"), wav(1, 32_000, &[])).expect("written");
    let before = names(dir.path());
    for (model, file, code, parts) in [
        ("MODEL", "music.wav", 2, &["`--melody`", "no MusicGen Melody", "musicgen_melody"][..]),
        ("melody", "absent.wav", 3, &["absent.wav"]),
        ("melody", "noise.wav", 3, &["noise.wav"]),
        ("melody", "empty.wav", 3, &["empty.wav"]),
    ] {
        let line = format!("generate --model {model} --seconds 0.4 --melody {file} --out out --hooks logits");
        run(dir.path(), &format!("{line} --capture store")).exits(code, parts);
    }
    assert_eq!(names(dir.path()), before);
}
