//! Every instruction stands in a hand-worked program: those that the decoder names, and each in the very form that a
//! kernel has it in.

use crate::ptx_sim::program::Program;
use auscult_kernels::REGISTRY;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The list of all instructions.
const DECODER: &str = include_str!("../exec/mod.rs");

/// Words of the programs below a folder, comments left out; this file holds none.
fn words(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            words(&path, into);
        } else if path.file_name() != Path::new(file!()).file_name() {
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
                let parts = line.split(|c: char| !(c.is_ascii_alphanumeric() || "._:".contains(c)));
                into.extend(parts.map(|part| part.trim_matches(':').to_string()));
            }
        }
    }
}

fn programs() -> BTreeSet<String> {
    let mut into = BTreeSet::new();
    words(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ptx_sim/tests"), &mut into);
    into
}

#[test]
fn every_instruction_that_the_decoder_names_has_a_program() {
    let list = &DECODER[DECODER.find("match s.base").unwrap()..DECODER.find("_ => s.unknown()").unwrap()];
    let named: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(named.len() > 60 && named.contains(&"wgmma"), "{named:?}");
    let programs = programs();
    let has = |name: &str| {
        programs
            .iter()
            .any(|word| word.strip_prefix(name).is_some_and(|more| more.is_empty() || more.starts_with('.')))
    };
    let without: Vec<&str> = named.into_iter().filter(|name| !has(name)).collect();
    assert!(without.is_empty(), "no hand-worked program has {without:?}");
}

#[test]
fn every_form_of_an_instruction_that_kernels_have_has_a_program() {
    let mut used = BTreeMap::new();
    for ptx in REGISTRY.iter().flat_map(|kernel| kernel.ptx) {
        let program = Program::new(ptx.source, ptx.entry).unwrap();
        // the last ends every lane at the body's brace
        for instruction in program.code.iter().filter(|instruction| &*instruction.text != "}") {
            let mut words = instruction.text.split_whitespace();
            let first = words.next().filter(|word| !word.starts_with('@')).or_else(|| words.next());
            used.entry(first.unwrap_or_default().trim_matches(';').to_string()).or_insert(ptx.entry);
        }
    }
    assert!(used.len() > 150, "{} forms", used.len());
    let programs = programs();
    used.retain(|form, _| !programs.contains(form));
    assert!(used.is_empty(), "no hand-worked program has these forms, which kernels have:\n{used:#?}");
}
