//! `t5 encode`.

use crate::support::{command, finished, floats, folder, json_file, model, names, run, tensor};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

crate::trials!(
    texts_become_states,
    a_file_is_read_line_by_line,
    a_prompt_does_not_depend_on_its_batch,
    bad_prompts_are_refused,
    models_without_a_tokenizer_are_refused,
);

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}

/// The metadata of a safetensors file.
fn prompts(path: &Path) -> Value {
    let bytes = fs::read(path).expect("written");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
    let metadata = header.metadata().as_ref().expect("it has metadata");
    serde_json::from_str(&metadata["prompts"]).expect("prompts are JSON")
}

fn texts_become_states() {
    let dir = folder();
    let line = "--json t5 encode --model MODEL --out E.safetensors";
    let mut ran = command(dir.path(), line);
    ran.args(["--text", "80s pop track with bassy drums", "a", "Rock!"]);
    let json = finished(line, &mut ran).ok().json();
    assert_eq!(names(dir.path()), ["E.safetensors", "E.safetensors.run.json"]);
    assert_eq!((&json["text_width"], &json["width"]), (&json!(48), &json!(128)));
    assert_eq!(json["prompts"][1]["text"], json!("a"));

    let file = dir.path().join("E.safetensors");
    assert_eq!(prompts(&file), json!(["80s pop track with bassy drums", "a", "Rock!"]));
    let (dtype, shape, tokens) = tensor(&file, "tokens");
    let total = shape[0];
    assert_eq!((dtype.as_str(), json!(total)), ("U32", json["tokens"].clone()));
    let tokens = words(&tokens);
    let (_, shape, offsets) = tensor(&file, "offsets");
    assert_eq!(shape, [4]);
    let offsets: Vec<usize> = words(&offsets).iter().map(|&at| usize::try_from(at).expect("short")).collect();
    assert_eq!((offsets[0], offsets[2] - offsets[1], offsets[3]), (0, 2, total));
    for (i, ends) in offsets.windows(2).enumerate() {
        assert_eq!(json["prompts"][i]["tokens"], json!(&tokens[ends[0]..ends[1]]), "prompt {i}");
        assert_eq!(tokens[ends[1] - 1], 1, "every prompt ends with the end");
    }
    for (name, width) in [("states", 48), ("projected", 128)] {
        let (dtype, shape, rows) = tensor(&file, name);
        assert_eq!((dtype.as_str(), shape), ("F32", vec![total, width]), "{name}");
        let rows = floats(&rows);
        assert!(rows.iter().all(|v| v.is_finite()) && rows.iter().any(|&v| v != 0.0), "{name}");
        let mean = if name == "states" { "mean" } else { "mean_projected" };
        let (dtype, shape, means) = tensor(&file, mean);
        assert_eq!((dtype.as_str(), shape), ("F32", vec![3, width]), "{mean}");
        for (i, (ends, mean)) in offsets.windows(2).zip(floats(&means).chunks_exact(width)).enumerate() {
            for (c, &got) in mean.iter().enumerate() {
                let column = (ends[0]..ends[1]).map(|row| f64::from(rows[row * width + c]));
                let want = column.sum::<f64>() / (ends[1] - ends[0]) as f64;
                assert!(
                    (f64::from(got) - want).abs() <= 1e-6,
                    "{name}: prompt {i}, column {c}: {got}, {want}"
                );
            }
        }
    }

    let record = json_file(&dir.path().join("E.safetensors.run.json"));
    assert_eq!((&record["precision"], &record["device"]["id"]), (&json!("f32"), &json!("cpu")));
    let models: Vec<&str> = record["models"]
        .as_array()
        .expect("files")
        .iter()
        .map(|f| f["path"].as_str().expect("a path"))
        .collect();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert_eq!(models.iter().filter(|path| path.ends_with(&format!("/{name}"))).count(), 1, "{models:?}");
    }
}

fn a_file_is_read_line_by_line() {
    let dir = folder();
    fs::write(dir.path().join("prompts.txt"), "slow jazz\nfolk\nnaïve 音\r\n").expect("the folder is there");
    let ran = run(dir.path(), "t5 encode --file prompts.txt --model MODEL --out E.safetensors").ok();
    assert!(ran.stdout.contains("E.safetensors: 3 prompts, "), "{ran}");
    let file = dir.path().join("E.safetensors");
    assert_eq!(prompts(&file), json!(["slow jazz", "folk", "naïve 音"]));
    let record = json_file(&dir.path().join("E.safetensors.run.json"));
    assert_eq!(record["inputs"][0]["path"], json!("prompts.txt"));
    // an output that is there is replaced, with its record
    run(dir.path(), "t5 encode --text one --model MODEL --out E.safetensors").ok();
    assert_eq!(prompts(&file), json!(["one"]));
    assert_eq!(names(dir.path()).len(), 3);
}

fn a_prompt_does_not_depend_on_its_batch() {
    let dir = folder();
    run(dir.path(), "t5 encode --text rock jazz-and-more-words-than-one --model MODEL --out two.safetensors")
        .ok();
    run(dir.path(), "t5 encode --text rock --model MODEL --out one.safetensors").ok();
    for name in ["states", "projected", "mean"] {
        let (_, _, one) = tensor(&dir.path().join("one.safetensors"), name);
        let (_, _, two) = tensor(&dir.path().join("two.safetensors"), name);
        assert!(!one.is_empty() && one.len() < two.len());
        assert!(two[..one.len()] == one[..], "{name}");
    }
}

fn bad_prompts_are_refused() {
    let dir = folder();
    fs::write(dir.path().join("empty.txt"), "").expect("the folder is there");
    fs::write(dir.path().join("latin.txt"), b"na\xefve\n").expect("the folder is there");
    fs::write(dir.path().join("gap.txt"), "jazz\n\nfolk\n").expect("the folder is there");
    fs::write(dir.path().join("blank.txt"), "jazz\n \t\n").expect("the folder is there");
    fs::write(dir.path().join("long.txt"), format!("short\n{}\n", "x ".repeat(600)))
        .expect("the folder is there");
    let before = names(dir.path());
    for (line, code, parts) in [
        ("--file empty.txt", 3, &["empty.txt: is empty", "a prompt on every line"][..]),
        ("--file latin.txt", 3, &["latin.txt: is not UTF-8"]),
        ("--file absent.txt", 3, &["absent.txt"]),
        ("--file gap.txt", 3, &["gap.txt: line 2 cannot be encoded", "empty, expected words"]),
        ("--file blank.txt", 3, &["blank.txt: line 2 cannot be encoded", "blank, expected words"]),
        ("--file long.txt", 3, &["long.txt: line 2 cannot be encoded", "1201 tokens, expected at most 512"]),
        ("", 2, &["--text"]),
        ("--text a --file empty.txt", 2, &["cannot be used with"]),
    ] {
        let line = format!("t5 encode {line} --model MODEL --out E.safetensors");
        run(dir.path(), &line).exits(code, parts);
        assert_eq!(names(dir.path()), before, "{line}");
    }
    let line = "t5 encode --model MODEL --out E.safetensors";
    let mut ran = command(dir.path(), line);
    ran.args(["--text", "jazz", ""]);
    finished(line, &mut ran).exits(2, &["`--text` is empty, expected words"]);
    assert_eq!(names(dir.path()), before);
    run(dir.path(), "t5 encode --text a --model MODEL --out absent/E.safetensors").exits(1, &["absent"]);
    assert_eq!(names(dir.path()), before);
}

fn models_without_a_tokenizer_are_refused() {
    let dir = folder();
    let bare = dir.path().join("bare");
    fs::create_dir(&bare).expect("a new folder");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model().join(name), bare.join(name)).expect("a copy");
    }
    let line = "t5 encode --text a --model bare --out E.safetensors";
    run(dir.path(), line).exits(3, &["bare", "neither tokenizer.json nor spiece.model"]);
    fs::write(bare.join("tokenizer.json"), "{}").expect("the folder is there");
    run(dir.path(), line).exits(3, &["tokenizer.json: is not a tokenizer"]);
    run(dir.path(), "t5 encode --text a --model absent --out E.safetensors").exits(3, &["absent"]);
    assert_eq!(names(dir.path()), ["bare"]);
}
