//! Bad inputs: the exit code, a message that names file, field and expectation, and nothing left behind.

use crate::support::{fixture, folder, index, model, music, names, run, wav};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

crate::trials!(
    damaged_weights,
    weights_of_another_model,
    weights_that_are_no_numbers,
    configurations_that_disagree,
    damaged_audio,
    odd_audio_that_works,
    options_that_cannot_be_served,
    destinations_that_cannot_be_written,
);

/// One capture of a small file, out of which nothing comes.
fn refused(dir: &Path, rest: &str, code: i32, parts: &[&str], why: &str) {
    let ran = run(dir, &format!("capture FIX/pcm_u8.wav --hooks hook_layers.2 --out out {rest}"));
    assert_eq!(ran.code, Some(code), "{why}\n{ran}");
    let ran = ran.exits(code, parts);
    assert!(ran.stdout.is_empty(), "{why}\n{ran}");
    assert!(!dir.join("out").exists(), "{why} left {:?}", names(&dir.join("out")));
}

/// A safetensors file taken apart: its header, and the data.
struct Parts {
    header: Value,
    data: Vec<u8>,
}

impl Parts {
    fn of(file: &[u8]) -> Self {
        let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
        let data = 8 + usize::try_from(length).expect("a short header");
        Self { header: serde_json::from_slice(&file[8..data]).expect("JSON"), data: file[data..].to_vec() }
    }

    fn file(&self) -> Vec<u8> {
        let mut header = self.header.to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut file = u64::try_from(header.len()).expect("short").to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(&self.data);
        file
    }

    /// Where a tensor's data lies.
    fn range(&self, name: &str) -> std::ops::Range<usize> {
        let offset = |at: usize| {
            let offset = self.header[name]["data_offsets"][at].as_u64().expect("a number");
            usize::try_from(offset).expect("a small file")
        };
        offset(0)..offset(1)
    }

    /// Takes a tensor out, and closes the gap.
    fn remove(&mut self, name: &str) {
        let gap = self.range(name);
        self.data.drain(gap.clone());
        let tensors = self.header.as_object_mut().expect("an object");
        tensors.shift_remove(name).expect("it was there");
        for (_, tensor) in tensors.iter_mut().filter(|(name, _)| *name != "__metadata__") {
            for offset in tensor["data_offsets"].as_array_mut().expect("a pair") {
                let at = offset.as_u64().expect("a number");
                if at >= gap.end as u64 {
                    *offset = json!(at - gap.len() as u64);
                }
            }
        }
    }
}

fn weights() -> Vec<u8> {
    fs::read(model().join("model.safetensors")).expect("the shared checkpoint")
}

/// A copy of the checkpoint with other weights.
fn with_weights(dir: &Path, file: &[u8]) {
    let bad = dir.join("bad");
    fs::create_dir_all(&bad).expect("a new folder");
    fs::copy(model().join("config.json"), bad.join("config.json")).expect("a copy");
    fs::write(bad.join("model.safetensors"), file).expect("a new file");
}

const FC1: &str = "decoder.model.decoder.layers.1.fc1.weight";
const FC2: &str = "decoder.model.decoder.layers.1.fc2.weight";

fn damaged_weights() {
    let dir = folder();
    let whole = weights();
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let edited = |edit: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&whole);
        edit(&mut parts);
        parts.file()
    };
    let files: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("no bytes", Vec::new(), &["expected"]),
        ("less than a header's length", whole[..5].to_vec(), &["expected"]),
        ("cut within the header", whole[..500].to_vec(), &["header"]),
        ("cut within the data", whole[..whole.len() / 2].to_vec(), &["truncated"]),
        ("one byte short", whole[..whole.len() - 1].to_vec(), &["truncated"]),
        ("one byte too many", [&whole[..], &[0]].concat(), &["expected"]),
        ("the longest header there is", with_length(u64::MAX), &["header"]),
        ("a header of a terabyte", with_length(1 << 40), &["header"]),
        ("no header", with_length(0), &["header"]),
        ("a header that is no JSON", edited(&|p| p.header = Value::from("tensors")), &["header"]),
        (
            "two tensors in one place",
            edited(&|p| p.header[FC1]["data_offsets"] = p.header[FC2]["data_offsets"].clone()),
            &["data_offsets"],
        ),
        (
            "offsets that run backwards",
            edited(&|p| {
                let range = p.range(FC1);
                p.header[FC1]["data_offsets"] = json!([range.end, range.start]);
            }),
            &[FC1, "data_offsets"],
        ),
        (
            "offsets beyond the file",
            edited(&|p| p.header[FC1]["data_offsets"] = json!([0, 1_u64 << 60])),
            &[FC1, "data_offsets"],
        ),
        ("a type of another size", edited(&|p| p.header[FC1]["dtype"] = json!("F64")), &[FC1, "F64"]),
        ("a type that does not exist", edited(&|p| p.header[FC1]["dtype"] = json!("F33")), &[FC1, "F33"]),
        (
            "a shape that does not fit",
            edited(&|p| p.header[FC1]["shape"] = json!([512, 127])),
            &[FC1, "[512, 127]"],
        ),
        ("a shape that overflows", edited(&|p| p.header[FC1]["shape"] = json!([u64::MAX, u64::MAX])), &[FC1]),
        ("a negative extent", edited(&|p| p.header[FC1]["shape"] = json!([-512, -128])), &[FC1]),
    ];
    for (why, file, parts) in files {
        with_weights(dir.path(), &file);
        refused(dir.path(), "--model bad", 3, &["bad/model.safetensors"], why);
        refused(dir.path(), "--model bad", 3, parts, why);
        run(dir.path(), "model info bad").exits(3, &["bad/model.safetensors"]);
    }
    let bad = dir.path().join("bad/model.safetensors");
    fs::remove_file(&bad).expect("just written");
    refused(dir.path(), "--model bad", 3, &["bad", "safetensors"], "no weights");
    fs::create_dir(&bad).expect("a new folder");
    refused(
        dir.path(),
        "--model bad",
        3,
        &["bad/model.safetensors", "directory"],
        "a directory in place of the weights",
    );
}

fn weights_of_another_model() {
    let dir = folder();
    let whole = weights();
    for name in [FC1, "audio_encoder.quantizer.layers.2.codebook.embed"] {
        let mut parts = Parts::of(&whole);
        parts.remove(name);
        with_weights(dir.path(), &parts.file());
        refused(
            dir.path(),
            "--model bad",
            3,
            &["bad/model.safetensors", "lacks 1 tensor", name],
            "a missing tensor",
        );
    }

    for (component, why) in
        [("decoder.", "surplus in the decoder"), ("audio_encoder.", "surplus in the codec")]
    {
        let mut parts = Parts::of(&whole);
        let end = parts.data.len();
        let name = format!("{component}surplus.weight");
        parts.header[&name] = json!({ "dtype": "F32", "shape": [0, 3], "data_offsets": [end, end] });
        with_weights(dir.path(), &parts.file());
        refused(dir.path(), "--model bad", 3, &["bad/model.safetensors", "1 tensor unexpected", &name], why);
    }

    let mut parts = Parts::of(&whole);
    let entry = parts.header.as_object_mut().expect("an object").shift_remove(FC1).expect("it is there");
    let other = FC1.replace("fc1", "fc9");
    parts.header[&other] = entry;
    with_weights(dir.path(), &parts.file());
    refused(dir.path(), "--model bad", 3, &["lacks", FC1, "unexpected", &other], "one error tells of both");

    let mut parts = Parts::of(&whole);
    parts.header[FC1]["shape"] = json!([128, 512]);
    with_weights(dir.path(), &parts.file());
    refused(
        dir.path(),
        "--model bad",
        3,
        &["misshapen", FC1, "[128, 512]", "[512, 128]"],
        "a transposed weight",
    );

    let mut parts = Parts::of(&whole);
    parts.header[FC1]["dtype"] = json!("I32");
    with_weights(dir.path(), &parts.file());
    refused(
        dir.path(),
        "--model bad",
        3,
        &["wrong type", FC1, "I32", "F32, F16 or BF16"],
        "integers for weights",
    );
}

fn weights_that_are_no_numbers() {
    let dir = folder();
    for (name, value) in [
        (FC2.to_string(), f32::NAN),
        ("audio_encoder.quantizer.layers.0.codebook.embed".to_string(), f32::INFINITY),
    ] {
        let mut parts = Parts::of(&weights());
        let range = parts.range(&name);
        // neither the first value nor one at a round place
        parts.data[range.start + 4 * 37..][..4].copy_from_slice(&value.to_le_bytes());
        with_weights(dir.path(), &parts.file());
        run(dir.path(), "model info bad --check-finite")
            .exits(3, &["bad/model.safetensors", &name, "37", "finite"]);
        run(dir.path(), "model info bad").ok();
        refused(
            dir.path(),
            "--model bad --check-finite",
            3,
            &["bad/model.safetensors", &name, "finite"],
            &name,
        );
        if name == FC2 {
            // nobody looked at the weights, so what comes of them is looked at
            run(dir.path(), "capture FIX/pcm_u8.wav --hooks hook_layers.2 --model bad --out unlooked")
                .exits(3, &["`hook_layers.2` is NaN or infinite in column", "--check-finite"]);
            assert!(!dir.path().join("unlooked/SHA256SUMS").exists(), "nothing was finished");
        }
    }
}

fn configurations_that_disagree() {
    let dir = folder();
    with_weights(dir.path(), &weights());
    let path = dir.path().join("bad/config.json");
    let whole: Value = serde_json::from_slice(&fs::read(&path).expect("a copy")).expect("JSON");
    // the sizes are held against the weights, the rest against what such a model can be
    for (pointer, value, parts) in [
        ("/decoder/num_hidden_layers", json!(4), &["model.safetensors", "lacks", "layers.3."][..]),
        ("/decoder/num_hidden_layers", json!(2), &["model.safetensors", "unexpected", "layers.2."]),
        ("/decoder/ffn_dim", json!(511), &["model.safetensors", "misshapen", "[511, 128]"]),
        ("/decoder/hidden_size", json!(64), &["model.safetensors", "misshapen"]),
        ("/decoder/vocab_size", json!(65), &["65"]),
        ("/decoder/num_codebooks", json!(3), &["3"]),
        ("/decoder/num_attention_heads", json!(3), &["config.json", "num_attention_heads", "3"]),
        ("/decoder/num_attention_heads", json!(0), &["config.json", "num_attention_heads", "0"]),
        ("/decoder/hidden_size", json!("wide"), &["config.json", "hidden_size"]),
        ("/audio_encoder/codebook_size", json!(63), &["63"]),
        ("/audio_encoder/num_filters", json!(9), &["model.safetensors", "misshapen"]),
        ("/audio_encoder/upsampling_ratios", json!([]), &["config.json", "upsampling_ratios"]),
        ("/audio_encoder/sampling_rate", json!(0), &["config.json", "sampling_rate"]),
        ("/audio_encoder/normalize", json!(true), &["config.json", "normalize"]),
        (
            "/audio_encoder/norm_type",
            json!("time_group_norm"),
            &["config.json", "norm_type", "time_group_norm"],
        ),
        ("/model_type", json!("bert"), &["config.json", "model_type", "bert"]),
    ] {
        let mut config = whole.clone();
        *config.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in {whole}")) = value.clone();
        fs::write(&path, config.to_string()).expect("it can be written");
        refused(dir.path(), "--model bad", 3, parts, &format!("{pointer} = {value}"));
    }
    for (text, why) in [("", "an empty file"), ("{", "half a file"), ("[]", "a list")] {
        fs::write(&path, text).expect("it can be written");
        refused(dir.path(), "--model bad", 3, &["bad/config.json"], why);
    }
    fs::remove_file(&path).expect("just written");
    refused(dir.path(), "--model bad", 3, &["bad", "config.json"], "no configuration");
    refused(dir.path(), "--model absent", 3, &["absent", "does not exist", "Hugging Face"], "no checkpoint");
    refused(
        dir.path(),
        "--model MODEL/model.safetensors",
        3,
        &["model.safetensors"],
        "a file in place of the checkpoint",
    );
}

fn damaged_audio() {
    let dir = folder();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("a new file");
    let read = |name: &str| fs::read(fixture(name)).expect("the fixture");
    let sound = vec![1_000_i16; 4_000];
    write("zero.wav", b"");
    write("silent.wav", &wav(1, 32_000, &[]));
    write("text.wav", "not a sound, only a sentence\n".repeat(99).as_bytes());
    write("slow.wav", &wav(1, 1, &sound));
    write("fast.wav", &wav(1, 768_001, &sound));
    write("lying.wav", &wav(1, 32_000, &sound)[..4_000]);
    for name in ["flac_s16.flac", "aac_44k.m4a", "alac.m4a", "vorbis_44k.ogg", "pcm_s16be.aiff"] {
        let bytes = read(name);
        write(&format!("cut-{name}"), &bytes[..bytes.len() * 2 / 3]);
    }
    fs::create_dir(dir.path().join("folder.wav")).expect("a new folder");
    // cut where a frame begins, an MP3 is a shorter MP3; this one is cut within its first
    write("cut.mp3", &read("mono_32k.mp3")[..100]);
    let before = names(dir.path());
    for (name, parts) in [
        ("zero.wav", &["0 bytes"][..]),
        ("silent.wav", &["samples"]),
        ("text.wav", &["WAV"]),
        ("slow.wav", &["sample rate", "1 Hz", "1000..=768000 Hz"]),
        ("fast.wav", &["sample rate", "768001 Hz", "1000..=768000 Hz"]),
        ("lying.wav", &["truncated"]),
        ("cut-flac_s16.flac", &["truncated"]),
        ("cut-aac_44k.m4a", &["moov"]),
        ("cut-alac.m4a", &["moov"]),
        ("cut-vorbis_44k.ogg", &["truncated"]),
        ("cut-pcm_s16be.aiff", &["truncated"]),
        ("cut.mp3", &[]),
        ("folder.wav", &["directory", "regular file"]),
        ("absent.wav", &["No such file"]),
        // a path below a file can be read by nobody, not even by root
        ("zero.wav/below.wav", &["Not a directory"]),
    ] {
        for command in ["capture --hooks embed --out out", "codec encode --out out"] {
            let ran = run(dir.path(), &format!("{command} --model MODEL {name}"));
            ran.exits(3, &[name]).exits(3, parts);
            assert_eq!(names(dir.path()), before, "{command} {name}");
        }
    }
    // all of them at once, and each is named
    let all = "--quiet capture zero.wav silent.wav folder.wav --model MODEL --hooks embed --out out";
    run(dir.path(), all).exits(3, &["none of 3 inputs", "zero.wav", "silent.wav", "folder.wav"]);
    assert_eq!(names(dir.path()), before);
    let short = "capture FIX/mono_32k.mp3 --model MODEL --hooks embed --out out --window 3 --drop-last";
    run(dir.path(), short).exits(3, &["shorter than the window"]);
    run(dir.path(), "capture FIX/mono_32k.mp3 --model MODEL --hooks embed --out out --start 5")
        .exits(3, &["mono_32k.mp3"]);
    assert_eq!(names(dir.path()), before);
}

fn odd_audio_that_works() {
    let dir = folder();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("a new file");
    write("one.wav", &wav(1, 32_000, &[12_345]));
    write("slowest.wav", &wav(1, 1_000, &[500, -500, 250]));
    write("fastest.wav", &wav(1, 768_000, &vec![-3_000; 24_000]));
    write("eight.wav", &wav(8, 32_000, &[[900_i16, -900, 5, 7, 11, 13, 17, 19]; 640].concat()));
    for (name, positions) in [
        ("one.wav", 2),
        // 3 ms and 31.25 ms: frames of 20 ms, begun ones count
        ("slowest.wav", 2),
        ("fastest.wav", 3),
        ("eight.wav", 2),
        ("FIX/eight_channels.wav", 21),
    ] {
        run(dir.path(), &format!("capture {name} --model MODEL --hooks embed,logits --out out")).ok();
        run(dir.path(), "store verify out").ok();
        assert_eq!(index(&dir.path().join("out"))[0]["positions"], positions, "{name}");
        fs::remove_dir_all(dir.path().join("out")).expect("just written");
        run(dir.path(), &format!("codec encode {name} --model MODEL --out c.safetensors")).ok();
        run(dir.path(), "codec decode c.safetensors --model MODEL --out c.wav").ok();
    }
}

fn options_that_cannot_be_served() {
    let dir = folder();
    let whole = vec![0_i16; 31 * 8_000];
    fs::write(dir.path().join("long.wav"), wav(1, 8_000, &whole)).expect("a new file");
    for (rest, parts) in [
        ("--window 30.1", &["`--window`", "30.1 s", "at most 30 s"][..]),
        ("--window 0", &["`--window`", "0 s"]),
        ("--window=-1", &["`--window`", "-1 s"]),
        ("--window NaN", &["`--window`"]),
        ("--window inf", &["`--window`"]),
        ("--stride 1", &["--window"]),
        ("--window 1 --stride 0", &["`--stride`"]),
        ("--drop-last", &["`--drop-last`", "--window"]),
        ("--start=-1", &["`--start`", "-1 s", "at least 0"]),
        ("--duration 0", &["`--duration`"]),
        ("--limit 0", &["`--limit`", "at least 1"]),
        ("--dtype f64", &["f64", "f32, f16 or bf16"]),
        ("--device gpu", &["`gpu`", "auto, cpu, wgpu[:N] or cuda[:N]"]),
        ("--device wgpu:first", &["`wgpu:first`"]),
        ("--device cpu:1", &["`cpu:1`"]),
        // no driver, or no such device
        ("--device cuda:99", &["device `cuda", "not available"]),
        ("--device cuda:first", &["`cuda:first`"]),
        ("--threads 0", &["--threads"]),
        ("--shard-rows 0", &["--shard-rows"]),
    ] {
        refused(dir.path(), &format!("--model MODEL {rest}"), 2, parts, rest);
    }
    for (hooks, parts) in [
        ("hook_layers.3", &["hook_layers.3", "0..=2"][..]),
        ("layers.7.resid_post", &["layers.7.resid_post", "0..=2"]),
        ("layers.1.resid_pots", &["layers.1.resid_pots", "nearest", "`layers.1.resid_post`"]),
        ("paper:0", &["paper:0", "counted from 1"]),
        ("paper:4", &["paper:4", "0..=2", "`layers.3.resid_post`"]),
        ("hook_layers.{0,1", &["{"]),
        ("../../etc", &["../../etc"]),
    ] {
        let line = format!("capture FIX/pcm_u8.wav --model MODEL --out out --hooks {hooks}");
        run(dir.path(), &line).exits(2, parts);
        assert_eq!(names(dir.path()), ["long.wav"], "{hooks}");
    }
    let line = "capture long.wav --model MODEL --hooks embed --out out";
    run(dir.path(), line).exits(3, &["long.wav", "30", "--window"]);
    run(dir.path(), "capture long.wav ./long.wav --model MODEL --hooks embed --out out")
        .exits(2, &["each file once"]);
    assert_eq!(names(dir.path()), ["long.wav"]);
}

fn destinations_that_cannot_be_written() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 0.1, 32_000, 5);
    fs::create_dir(dir.path().join("mine")).expect("a new folder");
    fs::write(dir.path().join("mine/notes.txt"), "keep").expect("a new file");
    let before = names(dir.path());
    let line = "capture a.wav --model MODEL --hooks embed --out";
    run(dir.path(), &format!("{line} mine")).exits(2, &["mine", "notes.txt", "not empty"]);
    run(dir.path(), &format!("{line} mine --resume")).exits(3, &["mine", "expected a store to resume"]);
    assert_eq!(names(&dir.path().join("mine")), ["notes.txt"]);
    run(dir.path(), &format!("{line} a.wav")).exits(1, &["a.wav"]);
    run(dir.path(), &format!("{line} a.wav/below")).exits(1, &["a.wav/below"]);
    run(dir.path(), "codec encode a.wav --model MODEL --out mine").exits(1, &["mine", "directory"]);
    run(dir.path(), "codec encode a.wav --model MODEL --out absent/c.safetensors")
        .exits(1, &["absent/c.safetensors"]);
    run(dir.path(), "model init --preset tiny --out a.wav/m").exits(1, &["a.wav/m"]);
    assert_eq!(names(dir.path()), before);
}
