//! The text half of MusicGen against stored outputs of Hugging Face transformers, on every executor: states of every
//! block, buckets of relative positions, tokens.
//!
//! What is missing of the executors shows as ignored: see `common/executors.rs`.

mod common;

use auscult_kernels::DType;
use auscult_model::t5::config::T5Config;
use auscult_model::t5::{T5Encoder, TextProjection, TextSite, TextStates, Tokenizer};
use auscult_runtime::Edits;
use common::checkpoint::{Layout, TextEmbedding, write_checkpoint};
use common::compare::{Tolerance, measure};
use common::executors::{Executor, Executors};
use common::golden::{Case, golden_dir};
use common::procedural::Stored;
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Check = Result<(), Failed>;

/// float32 on the processor: sums in other orders than float64's, and square roots and exponentials within some ulp.
const CPU: Tolerance = Tolerance { rel_l2: 3e-6, elem_over_rms: 3e-5 };

const ENCODERS: [&str; 3] = ["relu", "gated", "wide"];

/// What an executor is held to.
fn tolerance(executor: &Executor) -> Tolerance {
    if executor.name == "cpu" { CPU } else { executor.tolerance() }
}

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let executors = Executors::open();
    let mut trials: Vec<Trial> = executors.missing().collect();
    for executor in &executors.there {
        for name in ENCODERS {
            let (executor, label) = (executor.clone(), format!("{}::{name}", executor.name));
            trials.push(Trial::test(label, move || encoder(&text_case(name), &executor)));
        }
        let (executor, label) = (executor.clone(), format!("{}::alone and in a batch", executor.name));
        trials.push(Trial::test(label, move || alone_and_in_a_batch(&executor)));
    }
    let cpu = executors.cpu().clone();
    trials.push(Trial::test("cpu::layouts", move || layouts(&cpu)));
    trials.push(Trial::test("tables::buckets", buckets));
    trials.push(Trial::test("tokenizer::tokenizer.json", || tokens(&golden_dir().join("text/tokenizer"))));
    trials.push(Trial::test("tokenizer::published form", published_form));
    trials.push(Trial::test("tokenizer::spiece.model", spiece_model));
    trials.push(Trial::test("tokenizer::padding and truncation", padding_and_truncation));
    libtest_mimic::run(&args, trials).exit_code()
}

fn text_case(name: &str) -> Case {
    Case::open(golden_dir().join("text").join(name))
}

/// A checkpoint directory of the case, deleted with the handle.
fn checkpoint(case: &Case, layout: &Layout) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    write_checkpoint(case, dir.path(), layout);
    dir
}

/// A run's prompts, without their padding.
fn prompts(case: &Case, run: &str) -> Vec<Vec<u32>> {
    let (ids, lengths) = (case.tensor(&format!("{run}.ids")), case.tensor(&format!("{run}.lengths")));
    let rows = ids.i32().chunks_exact(ids.shape[1]).zip(lengths.i32());
    let whole = |&id: &i32| u32::try_from(id).expect("ids are not negative");
    rows.map(|(row, &length)| {
        let length = usize::try_from(length).expect("lengths are not negative");
        row[..length].iter().map(whole).collect()
    })
    .collect()
}

fn runs(case: &Case) -> Vec<String> {
    let names = case.names();
    let runs = names.iter().filter_map(|name| name.strip_suffix(".ids"));
    runs.map(str::to_owned).collect()
}

fn slices(prompts: &[Vec<u32>]) -> Vec<&[u32]> {
    prompts.iter().map(Vec::as_slice).collect()
}

fn joined(states: &[TextStates]) -> Vec<f32> {
    states.iter().flat_map(|states| states.values()).copied().collect()
}

/// Every site of every run, and the projection.
fn encoder(case: &Case, executor: &Executor) -> Check {
    let dir = checkpoint(case, &Layout::default());
    let encoder = T5Encoder::open(dir.path(), executor.backend.clone())?;
    let projection = TextProjection::open(dir.path(), executor.backend.clone())?;
    let runs = runs(case);
    assert!(!runs.is_empty(), "{}: no runs", case.name);
    for run in runs {
        let prompts = prompts(case, &run);
        let mut edits = Edits::new();
        let sites: Vec<TextSite> = TextSite::all(encoder.config().num_layers).collect();
        for site in &sites {
            edits.capture(site, DType::F32);
        }
        let captured = encoder.encode_with(&slices(&prompts), edits)?;
        assert_eq!(captured.len(), sites.len());
        for (site, states) in &captured {
            let name = format!("{run}.{site}");
            let lengths: Vec<usize> = states.iter().map(TextStates::tokens).collect();
            assert_eq!(lengths, prompts.iter().map(Vec::len).collect::<Vec<_>>(), "{name}");
            measure(&name, &joined(states), case.tensor(&name).f32(), tolerance(executor))?;
        }
        let states = encoder.encode(&slices(&prompts))?;
        let (_, last) = captured.last().expect("the final norm");
        assert!(states == *last, "{run}: captures change nothing");
        let projected = projection.project(&states)?;
        if projection.width() == projection.text_width() {
            assert!(projected == states, "{run}: no projection, the states themselves");
            continue;
        }
        let name = format!("{run}.projected");
        measure(&name, &joined(&projected), case.tensor(&name).f32(), tolerance(executor))?;
    }
    Ok(())
}

/// A prompt's states have the same bits whatever it is encoded with.
fn alone_and_in_a_batch(executor: &Executor) -> Check {
    for name in ENCODERS {
        let case = text_case(name);
        let dir = checkpoint(&case, &Layout::default());
        let encoder = T5Encoder::open(dir.path(), executor.backend.clone())?;
        let projection = TextProjection::open(dir.path(), executor.backend.clone())?;
        let mut all: Vec<Vec<u32>> = runs(&case).iter().flat_map(|run| prompts(&case, run)).collect();
        all.push(vec![1]);
        let together = encoder.encode(&slices(&all))?;
        for (i, (prompt, states)) in all.iter().zip(&together).enumerate() {
            let alone = encoder.encode(&[prompt.as_slice()])?.remove(0);
            assert!(alone == *states, "{name}: a prompt of {} tokens", prompt.len());
            // likewise of rows: the first token's, by itself
            let first = states.values()[..states.width()].to_vec();
            let one = projection.project(&[TextStates::new(states.width(), first)?])?.remove(0);
            let whole = projection.project(&together)?.swap_remove(i);
            assert!(one.values() == &whole.values()[..whole.width()], "{name}: the projection of a token");
        }
    }
    Ok(())
}

/// Both names of the embedding, and a file of two-byte weights.
fn layouts(cpu: &Executor) -> Check {
    let case = text_case("gated");
    let prompts = prompts(&case, "r0");
    let encode = |layout: Layout| -> Result<Vec<TextStates>, Failed> {
        let dir = checkpoint(&case, &layout);
        Ok(T5Encoder::open(dir.path(), cpu.backend.clone())?.encode(&slices(&prompts))?)
    };
    let shared = encode(Layout::default())?;
    for text_embedding in [TextEmbedding::EmbedTokens, TextEmbedding::Both] {
        assert!(encode(Layout { text_embedding, ..Layout::default() })? == shared, "{text_embedding:?}");
    }
    for stored in [Stored::F16, Stored::Bf16] {
        let narrow = encode(Layout { stored, rounded: stored, ..Layout::default() })?;
        let widened = encode(Layout { rounded: stored, ..Layout::default() })?;
        assert!(narrow == widened, "{stored:?}");
        assert!(narrow != shared, "{stored:?}: rounding changes something");
    }
    Ok(())
}

fn buckets() -> Check {
    let case = text_case("buckets");
    let relative = case.tensor("relative");
    let tables: Vec<&str> = case.names().into_iter().filter(|name| name.starts_with("buckets.")).collect();
    assert_eq!(tables.len(), 5);
    for name in tables {
        let numbers: Vec<usize> = name.split('.').skip(1).map(|n| n.parse().expect("a number")).collect();
        let config = T5Config {
            relative_attention_num_buckets: numbers[0],
            relative_attention_max_distance: numbers[1],
            ..T5Config::default()
        };
        let wanted = case.tensor(name);
        for (&relative, &want) in relative.i32().iter().zip(wanted.i32()) {
            let found = config.position_bucket(relative.into());
            assert_eq!(Ok(found), usize::try_from(want), "{name}: position {relative}");
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Expected {
    text: String,
    ids: Vec<u32>,
}

/// Every stored text through the tokenizer of a folder.
fn tokens(dir: &Path) -> Check {
    let tokenizer = Tokenizer::open(dir)?;
    assert_eq!(tokenizer.limit(), 512);
    let stored = fs::read(golden_dir().join("text/tokenizer/expected.json"))?;
    let expected: Vec<Expected> = serde_json::from_slice(&stored)?;
    assert!(expected.len() > 30, "{} texts", expected.len());
    let mut wrong = Vec::new();
    for Expected { text, ids } in expected {
        let found = tokenizer.encode(&text)?;
        if found != ids {
            wrong.push(format!("{text:?}: {found:?}, expected {ids:?}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// A folder with `tokenizer.json` as `change` leaves it.
fn changed(change: impl FnOnce(&mut Value)) -> Result<(tempfile::TempDir, PathBuf), Failed> {
    let dir = tempfile::tempdir()?;
    let mut form: Value =
        serde_json::from_slice(&fs::read(golden_dir().join("text/tokenizer/tokenizer.json"))?)?;
    change(&mut form);
    fs::write(dir.path().join("tokenizer.json"), serde_json::to_vec(&form)?)?;
    let path = dir.path().to_path_buf();
    Ok((dir, path))
}

/// The normalizer and pre-tokenizer of the files on the hub, which an older converter wrote; `make_text_fixtures.py` holds
/// that the reference reads them as it does the newer form.
fn published_form() -> Check {
    let (_held, dir) = changed(|form| {
        form["normalizer"] = form["normalizer"]["normalizers"][0].take();
        form["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
            { "type": "WhitespaceSplit" }, { "type": "Metaspace", "replacement": "▁", "add_prefix_space": true },
        ] });
    })?;
    tokens(&dir)
}

/// No file but the SentencePiece model.
fn spiece_model() -> Check {
    let dir = tempfile::tempdir()?;
    fs::copy(golden_dir().join("text/tokenizer/spiece.model"), dir.path().join("spiece.model"))?;
    tokens(dir.path())
}

/// What the file says of batches is of no concern.
fn padding_and_truncation() -> Check {
    let (_held, dir) = changed(|form| {
        form["truncation"] =
            json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
        form["padding"] = json!({
            "strategy": { "Fixed": 32 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "<pad>",
        });
    })?;
    tokens(&dir)
}
