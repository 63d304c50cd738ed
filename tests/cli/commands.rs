//! `demo`, `doctor`, `model`, `codec`, and help.

use crate::support::{Ran, fixture, floats, folder, json_file, model, names, run, tensor, tree};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

crate::trials!(
    help_names_every_option,
    unknown_words_are_usage_errors,
    demo_can_be_run_again,
    demo_leaves_foreign_folders_alone,
    doctor_finds_nothing_wrong,
    model_info_tells_the_same_in_both_forms,
    model_init_follows_its_flags,
    model_init_refuses_what_is_there,
    convert_reads_audiocraft,
    convert_refuses_code_and_damage,
    codec_goes_there_and_back,
    codec_refuses_bad_codes,
);

fn help_names_every_option() {
    let dir = folder();
    for (command, options) in [
        ("", &["demo", "doctor", "model", "capture", "generate", "sae", "store", "codec", "t5", "bench"][..]),
        ("demo", &["--out"]),
        ("doctor", &["--no-self-test", "--no-rates"]),
        ("model", &["info", "init", "convert"]),
        ("model info", &["<PATH>", "--tensors", "--check-finite"]),
        ("model init", &["--preset", "--seed", "--dtype", "--out"]),
        ("model convert", &["<INPUT>", "--codec", "--text-encoder", "--out"]),
        (
            "capture",
            &[
                "--model",
                "--manifest",
                "--audio-root",
                "[AUDIO]",
                "--hooks",
                "--out",
                "--text",
                "--window",
                "--stride",
                "--start",
                "--duration",
                "--drop-last",
                "--dtype",
                "--posemb",
                "--batch",
                "--resume",
                "--limit",
                "--check-finite",
                "--explain",
            ],
        ),
        (
            "generate",
            &[
                "--model",
                "--seconds",
                "--out",
                "--melody",
                "--audio-prompt",
                "--prompt-seconds",
                "--seed",
                "--count",
                "--same-noise",
                "--cfg",
                "--top-k",
                "--top-p",
                "--temperature",
                "--greedy",
                "--context",
                "--window",
                "--batch",
                "--float",
                "--format",
                "--stream",
                "--explain",
                "--text",
                "--prompts",
                "--text-pad",
                "--sae",
                "--allow-misaligned",
                "--ablate",
                "--scale",
                "--set",
                "--steer",
                "--zero",
                "--replace",
                "--patch",
                "--edit-rows",
                "--edit-window",
                "--controls",
                "--hooks",
                "--capture",
            ],
        ),
        ("bench", &["--kernel"]),
        ("codec", &["encode", "decode"]),
        ("codec encode", &["<INPUT>", "--model", "--out", "--explain"]),
        ("codec decode", &["<INPUT>", "--model", "--out", "--float", "--explain"]),
        ("sae", &["info", "align", "eval", "encode", "train"]),
        ("sae info", &["<SAE>"]),
        (
            "sae encode",
            &[
                "--sae",
                "--input",
                "--tensor",
                "--store",
                "--hook",
                "--k",
                "--allow-misaligned",
                "--not-finite",
                "--out",
                "--resume",
            ],
        ),
        (
            "sae train",
            &[
                "--input",
                "--tensor",
                "--store",
                "--model",
                "[AUDIO]",
                "--hooks",
                "--mode",
                "--features",
                "--expansion",
                "--k",
                "--batch",
                "--steps",
                "--lr",
                "--seed",
                "--checkpoint-every",
                "--resume",
                "--out",
            ],
        ),
        (
            "sae align",
            &[
                "--model",
                "--sae",
                "[AUDIO]",
                "--manifest",
                "--audio-root",
                "--window",
                "--windows",
                "--limit",
                "--sites",
                "--offsets",
                "--posemb",
                "--ce",
            ],
        ),
        (
            "sae eval",
            &[
                "--sae",
                "--store",
                "--model",
                "[AUDIO]",
                "--hook",
                "--window",
                "--limit",
                "--duplicates",
                "--pairs",
                "--allow-misaligned",
                "--out",
            ],
        ),
        ("features", &["stats", "top", "profile"]),
        (
            "features stats",
            &[
                "--store",
                "--sae",
                "--with-start",
                "--min-rate",
                "--max-rate",
                "--rate",
                "--above",
                "--labels",
                "--out",
            ],
        ),
        (
            "features top",
            &["--store", "--sae", "--with-start", "--feature", "--n", "--seconds", "--audio-root", "--out"],
        ),
        ("features profile", &["--store", "--sae", "--with-start", "--feature", "--all", "--bins", "--out"]),
        ("t5", &["encode"]),
        ("t5 encode", &["--text", "--file", "--model", "--out"]),
        ("store", &["info", "verify", "export"]),
        ("store info", &["<STORE>"]),
        ("store verify", &["<STORE>"]),
        ("store export", &["<STORE>", "--npy", "--out"]),
    ] {
        let help = run(dir.path(), &format!("{command} --help")).ok();
        for option in ["--device", "--precision", "--threads", "--json", "--quiet"].iter().chain(options) {
            assert!(help.stdout.contains(option), "`{option}` is missing\n{help}");
        }
        assert!(help.stderr.is_empty(), "{help}");
    }
    assert_eq!(
        run(dir.path(), "--version").ok().stdout.trim(),
        format!("auscult {}", env!("CARGO_PKG_VERSION"))
    );
}

fn unknown_words_are_usage_errors() {
    let dir = folder();
    for (line, parts) in [
        ("", &["requires a subcommand"][..]),
        ("listen", &["unrecognized subcommand 'listen'"]),
        ("store destroy x", &["unrecognized subcommand 'destroy'"]),
        ("capture --model MODEL --hooks embed --out s", &["<AUDIO>"]),
        ("capture --model MODEL --out s a.wav", &["--hooks"]),
        ("capture --model MODEL --hooks embed --out s a.wav --loud", &["--loud"]),
        ("model init --preset huge --out m", &["huge", "tiny, small, medium or large"]),
        ("model init --preset tiny --dtype i8 --out m", &["i8", "f32, f16 or bf16"]),
        ("store export s --out n", &["--npy"]),
        ("--precision f64 demo", &["f64", "f32"]),
        ("--threads 0 demo", &["--threads"]),
    ] {
        run(dir.path(), line).exits(2, parts);
    }
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

fn demo_can_be_run_again() {
    let dir = folder();
    run(dir.path(), "demo").ok();
    let out = dir.path().join("demo-out");
    let first = tree(&out);
    for name in [
        "music.wav",
        "model/config.json",
        "model/model.safetensors",
        "store/SHA256SUMS",
        "demo.json",
        "run.json",
    ] {
        assert!(first.contains_key(name), "{name} is missing: {:?}", first.keys());
    }
    run(dir.path(), "store verify demo-out/store").ok();
    let record = json_file(&out.join("run.json"));
    assert_eq!(record["seed"], 7);
    assert_eq!(record["device"]["id"], "cpu");
    assert_eq!(record["models"].as_array().map(Vec::len), Some(2), "{record}");
    let report = run(dir.path(), "--json demo").ok().json();
    assert_eq!(report, json_file(&out.join("demo.json")));
    assert_eq!(report["clips"].as_array().map(Vec::len), Some(4), "36 s in windows of 10 s");
    assert_eq!(report["hooks"].as_array().map(Vec::len), Some(4));
    for hook in report["hooks"].as_array().into_iter().flatten() {
        assert_eq!(hook["rows"], 3 * 501 + 301, "ceil(seconds * 50) + 1 positions of each clip");
        assert!(hook["rms"].as_f64().is_some_and(|rms| rms > 0.01), "{hook}");
    }
    assert!(!report["motif"].as_array().expect("a list").is_empty());
    let second = tree(&out);
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        let dated = name.ends_with("run.json") || name.ends_with("SHA256SUMS");
        assert!(dated || second[name] == *bytes, "{name} differs from one demo to the next");
    }
}

fn demo_leaves_foreign_folders_alone() {
    let dir = folder();
    fs::create_dir(dir.path().join("mine")).expect("a new folder");
    fs::write(dir.path().join("mine/thesis.txt"), "years of work").expect("a new file");
    let before = tree(dir.path());
    run(dir.path(), "demo --out mine").exits(2, &["mine", "thesis.txt", "--out"]);
    assert_eq!(tree(dir.path()), before);
    fs::create_dir(dir.path().join("empty")).expect("a new folder");
    run(dir.path(), "demo --out empty --quiet").ok();
    run(dir.path(), "demo --out mine/thesis.txt").exits(1, &["thesis.txt"]);
    assert_eq!(fs::read(dir.path().join("mine/thesis.txt")).expect("it is there"), b"years of work");
}

fn doctor_finds_nothing_wrong() {
    let dir = folder();
    let report = run(dir.path(), "doctor --json --no-rates").ok().json();
    let devices = report["devices"].as_array().expect("a list");
    assert_eq!(devices.len(), 1, "the device asked for and no other");
    assert_eq!(devices[0]["id"], "cpu");
    let tests = devices[0]["self_test"].as_object().expect("by kernel");
    assert!(tests.len() >= 15, "{} kernels", tests.len());
    for (kernel, result) in tests {
        assert!(result["cases"].as_u64().is_some_and(|cases| cases > 0), "{kernel}: {result}");
        assert_eq!(result["failures"].as_array().map(Vec::len), Some(0), "{kernel}: {result}");
    }
    let text = run(dir.path(), "doctor --no-rates").ok().stdout;
    for (kernel, result) in tests {
        let names = |line: &&str| line.split_whitespace().next() == Some(kernel);
        let line = text.lines().find(names).unwrap_or_else(|| panic!("no line of {kernel}\n{text}"));
        let cases = result["cases"].to_string();
        assert!(line.contains(&format!("  {cases:>3} cases  ")), "{line}");
        let exact = result["worst_error"] == 0.0;
        assert!(line.ends_with(" exact") == exact && line.contains(" off by at most ") != exact, "{line}");
    }
    let text = run(dir.path(), "doctor --no-self-test").ok().stdout;
    assert!(text.contains("GB/s") && text.contains("GFLOP/s"), "{text}");
    run(dir.path(), "--device abacus doctor")
        .exits(2, &["abacus", "expected auto, cpu, wgpu[:N] or cuda[:N]"]);
}

fn model_info_tells_the_same_in_both_forms() {
    let dir = folder();
    let text = run(dir.path(), "model info MODEL --tensors --check-finite").ok().stdout;
    let json = run(dir.path(), "model info MODEL --tensors --json").ok().json();
    assert_eq!(json["model_type"], "musicgen");
    assert_eq!(json["config"]["decoder"]["hidden_size"], 128);
    assert_eq!(json["config"]["codec"]["sampling_rate"], 32_000);
    for part in json["parts"].as_array().expect("a list") {
        let name = part["name"].as_str().expect("a name");
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains(" tensors "))
            .expect("a line of its own");
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let counts = ["tensors", "values", "bytes"].map(|key| part[key].as_u64().expect("a number"));
        assert_eq!(numbers, counts, "{line}");
    }
    let tensors = json["tensors"].as_array().expect("asked for");
    for tensor in tensors {
        let name = tensor["name"].as_str().expect("a name");
        assert!(text.contains(&format!("{name}  {} ", tensor["dtype"].as_str().expect("a type"))), "{name}");
    }
    let file = fs::read(model().join("model.safetensors")).expect("it is there");
    let file = safetensors::SafeTensors::deserialize(&file).expect("it is whole");
    assert_eq!(tensors.len(), file.len());
    let short = run(dir.path(), "model info MODEL --json").ok().json();
    assert!(short["tensors"].is_null(), "only with --tensors");
}

/// Bytes of the checkpoint `dir/name`, but for `run.json`, which has the time.
fn checkpoint(dir: &Path, name: &str) -> Vec<(String, Vec<u8>)> {
    tree(&dir.join(name)).into_iter().filter(|(name, _)| name != "run.json").collect()
}

fn model_init_follows_its_flags() {
    let dir = folder();
    for line in [
        "model init --preset tiny --out zero",
        "model init --preset tiny --seed 0 --out again",
        "model init --preset tiny --seed 1 --out one",
        "model init --preset tiny --dtype f16 --out half",
        "model init --preset tiny --dtype bf16 --out bfloat",
    ] {
        run(dir.path(), line).ok();
    }
    assert_eq!(
        checkpoint(dir.path(), "zero"),
        checkpoint(dir.path(), "again"),
        "a seed is all there is to it"
    );
    assert_ne!(checkpoint(dir.path(), "zero"), checkpoint(dir.path(), "one"));
    for (name, types, seed) in
        [("zero", "F32", 0), ("one", "F32", 1), ("half", "F16", 0), ("bfloat", "BF16", 0)]
    {
        let info = run(dir.path(), &format!("model info {name} --json --check-finite")).ok().json();
        assert_eq!(info["types"], serde_json::json!([types]), "{name}");
        let record = json_file(&dir.path().join(name).join("run.json"));
        assert_eq!(record["seed"], seed);
        let hashes: Vec<&Value> =
            record["models"].as_array().expect("a list").iter().map(|f| &f["sha256"]).collect();
        assert_eq!(hashes.len(), checkpoint(dir.path(), name).len(), "a hash for each file");
        run(
            dir.path(),
            &format!("capture FIX/flac_s16.flac --model {name} --hooks embed --out {name}-store"),
        )
        .ok();
    }
}

fn model_init_refuses_what_is_there() {
    let dir = folder();
    run(dir.path(), "model init --preset tiny --out m").ok();
    let before = tree(dir.path());
    let again = run(dir.path(), "model init --preset tiny --seed 9 --out m");
    assert!(matches!(again.code, Some(2 | 3)), "{again}");
    assert!(again.stderr.contains("m: holds a config.json already"), "{again}");
    assert_eq!(tree(dir.path()), before);
    run(dir.path(), "model init --preset tiny --out m/config.json")
        .exits(3, &["config.json", "expected a directory"]);
    assert_eq!(tree(dir.path()), before);
}

fn torch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/data/torch").join(name)
}

fn convert(dir: &Path, input: &str, rest: &str) -> Ran {
    run(dir, &format!("model convert {} {rest}", torch(input).display()))
}

fn convert_reads_audiocraft() {
    let dir = folder();
    let t5 = torch("t5");
    let ran =
        convert(dir.path(), "audiocraft", &format!("--text-encoder {} --out c --json", t5.display())).ok();
    let report = ran.json();
    assert_eq!((&report["kind"], &report["tensors"]), (&"musicgen".into(), &135.into()));
    let info = run(dir.path(), "model info c --json --check-finite").ok().json();
    assert_eq!(info["config"]["decoder"]["hidden_size"], 24);
    let record = json_file(&dir.path().join("c/run.json"));
    assert_eq!(record["details"]["notes"], report["notes"]);
    // this codec runs at 300 Hz, which no audio file may have
    let encode = run(dir.path(), "codec encode FIX/pcm_u8.wav --model c --out codes.safetensors");
    encode.exits(2, &["300 Hz", "expected 1000..=768000 Hz"]);
    convert(dir.path(), "ordered.pt", "--out plain").ok();
}

fn convert_refuses_code_and_damage() {
    let dir = folder();
    for (file, code, parts) in [
        ("refused/os_system.pt", 4, &["os_system.pt", "`posix.system`", "only tensor data"][..]),
        ("refused/eval.pt", 4, &["eval.pt", "refused"]),
        ("refused/truncated_zip.pt", 3, &["truncated_zip.pt", "damaged zip"]),
        ("refused/empty.pt", 3, &["empty.pt"]),
        ("absent.pt", 3, &["absent.pt", "No such file"]),
        ("audiocraft", 3, &["state_dict.bin", "text encoder"]),
    ] {
        convert(dir.path(), file, "--out out").exits(code, parts);
        assert!(names(dir.path()).is_empty(), "{file} left {:?}", names(dir.path()));
    }
    // a pickle is never loaded by anything else
    let pickled = dir.path().join("pickled");
    fs::create_dir(&pickled).expect("a new folder");
    fs::copy(model().join("config.json"), pickled.join("config.json")).expect("a copy");
    fs::copy(torch("ordered.pt"), pickled.join("pytorch_model.bin")).expect("a copy");
    for line in ["model info pickled", "capture FIX/pcm_u8.wav --model pickled --hooks embed --out s"] {
        run(dir.path(), line).exits(3, &["pytorch_model.bin", "pickle", "auscult model convert"]);
    }
    assert_eq!(names(dir.path()), ["pickled"]);
}

fn codec_goes_there_and_back() {
    let dir = folder();
    let encoded =
        run(dir.path(), "--json codec encode FIX/stereo_vbr_44k.mp3 --model MODEL --out c.safetensors").ok();
    let report = encoded.json();
    // 2 s at 50 frames a second
    assert_eq!(
        (&report["codebooks"], &report["frames"], &report["samples"]),
        (&4.into(), &100.into(), &64_000.into())
    );
    let (dtype, shape, bytes) = tensor(&dir.path().join("c.safetensors"), "codes");
    assert_eq!((dtype.as_str(), shape.as_slice()), ("I32", &[4, 100][..]));
    let codes: Vec<i32> =
        bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("four"))).collect();
    assert!(codes.iter().all(|code| (0..64).contains(code)), "codes of a codebook of 64");
    assert!(codes.iter().any(|&code| code != codes[0]), "music is not one code");

    let decoded = run(dir.path(), "--json codec decode c.safetensors --model MODEL --out i.wav").ok().json();
    let exact =
        run(dir.path(), "--json codec decode c.safetensors --model MODEL --out f.wav --float").ok().json();
    assert_eq!(decoded["samples"], 64_000);
    assert_eq!(decoded["clipped"], exact["beyond_full_scale"]);
    assert_eq!(exact["clipped"], 0, "floats keep what is beyond full scale");
    let int = fs::read(dir.path().join("i.wav")).expect("it is there");
    let float = fs::read(dir.path().join("f.wav")).expect("it is there");
    let (int, float) = (samples(&int, 1, 16), samples(&float, 3, 32));
    let int: Vec<f32> =
        int.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect();
    let float = floats(&float);
    assert_eq!((int.len(), float.len()), (64_000, 64_000));
    for (at, (int, float)) in int.iter().zip(&float).enumerate() {
        // half a step of rounding; full scale is 32767 steps above zero
        let error = (int - float.clamp(-1.0, 32_767.0 / 32_768.0)).abs();
        assert!(error <= 0.5001 / 32_768.0, "sample {at}: {int} and {float}");
    }
    // codes of any integer type; the same audio
    let first = fs::read(dir.path().join("i.wav")).expect("it is there");
    let narrow: Vec<u8> = codes.iter().map(|&code| u8::try_from(code).expect("below 64")).collect();
    write_codes(&dir.path().join("u8.safetensors"), "U8", &[4, 100], &narrow);
    let wide: Vec<u8> = codes.iter().flat_map(|&code| i64::from(code).to_le_bytes()).collect();
    write_codes(&dir.path().join("i64.safetensors"), "I64", &[4, 100], &wide);
    for name in ["u8", "i64"] {
        run(dir.path(), &format!("codec decode {name}.safetensors --model MODEL --out {name}.wav")).ok();
        assert!(fs::read(dir.path().join(format!("{name}.wav"))).expect("it is there") == first, "{name}");
    }
}

/// The data of a WAV file of one channel at 32 kHz, format `tag`, `bits` a sample.
fn samples(file: &[u8], tag: u16, bits: u16) -> Vec<u8> {
    assert_eq!((&file[..4], &file[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
    let (mut at, mut format) = (12, None);
    loop {
        let length = u32::from_le_bytes(file[at + 4..at + 8].try_into().expect("four bytes"));
        let body = &file[at + 8..at + 8 + usize::try_from(length).expect("a short file")];
        match &file[at..at + 4] {
            b"fmt " => format = Some(body.to_vec()),
            b"data" => {
                let format = format.expect("the format comes first");
                let half = |at: usize| u16::from_le_bytes([format[at], format[at + 1]]);
                assert_eq!((half(0), half(2), half(14)), (tag, 1, bits), "format, channels, bits");
                assert_eq!(u32::from_le_bytes(format[4..8].try_into().expect("four")), 32_000);
                return body.to_vec();
            }
            _ => {}
        }
        at += 8 + body.len() + body.len() % 2;
    }
}

fn write_codes(path: &Path, dtype: &str, shape: &[usize], data: &[u8]) {
    let mut header =
        format!(r#"{{"codes":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{}]}}}}"#, data.len());
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = u64::try_from(header.len()).expect("short").to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(path, file).expect("the folder is there");
}

fn codec_refuses_bad_codes() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    write_codes(&at("good.safetensors"), "U8", &[4, 3], &[1; 12]);
    write_codes(&at("float.safetensors"), "F32", &[4, 3], &[0; 48]);
    write_codes(&at("rank.safetensors"), "U8", &[12], &[1; 12]);
    write_codes(&at("books.safetensors"), "U8", &[3, 4], &[1; 12]);
    write_codes(&at("range.safetensors"), "U8", &[4, 3], &[64; 12]);
    write_codes(&at("negative.safetensors"), "I32", &[4, 3], &[255; 48]);
    write_codes(&at("none.safetensors"), "U8", &[4, 0], &[]);
    let good = fs::read(at("good.safetensors")).expect("just written");
    fs::write(at("cut.safetensors"), &good[..good.len() - 5]).expect("the folder is there");
    fs::write(at("zero.safetensors"), b"").expect("the folder is there");
    fs::copy(fixture("flac_s16.flac"), at("music.safetensors")).expect("a copy");
    let other = String::from_utf8_lossy(&good).replace("codes", "coded").into_bytes();
    fs::write(at("other.safetensors"), other).expect("the folder is there");
    fs::create_dir(at("folder.safetensors")).expect("a new folder");
    let before = names(dir.path());
    run(dir.path(), "codec decode good.safetensors --model MODEL --out good.wav").ok();
    fs::remove_file(at("good.wav")).expect("just written");
    for (name, parts) in [
        ("float", &["`codes` is F32", "integers"][..]),
        ("rank", &["`codes` has shape [12]", "[codebooks, frames]"]),
        ("books", &["codebook", "4"]),
        ("range", &["64"]),
        ("negative", &["code -1", "0 or more"]),
        ("none", &["`codes` has shape [4, 0]", "at least one frame"]),
        ("cut", &["truncated"]),
        ("zero", &["expected"]),
        ("music", &["expected"]),
        ("other", &["no tensor `codes`"]),
        ("folder", &["directory"]),
        ("absent", &["No such file"]),
    ] {
        let line = format!("codec decode {name}.safetensors --model MODEL --out out.wav");
        run(dir.path(), &line).exits(3, &[&format!("{name}.safetensors")]).exits(3, parts);
        assert_eq!(names(dir.path()), before, "{name}");
    }
    for name in ["zero.safetensors", "absent.wav", "folder.safetensors"] {
        let line = format!("codec encode {name} --model MODEL --out out.safetensors");
        run(dir.path(), &line).exits(3, &[name]);
        assert_eq!(names(dir.path()), before, "{name}");
    }
}
