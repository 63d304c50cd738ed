//! The README keeps what it promises: its program compiles, runs and stands there word for word; its table of kernels is
//! the registry's. `AUSCULT_UPDATE_README=1` writes both anew.

use auscult_kernels::{REGISTRY, WgslNeeds};
use auscult_model::init::{Preset, init};
use std::path::{Path, PathBuf};
use std::process::Command;

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// The text between `<!-- name -->` and `<!-- /name -->` must be `want`.
fn section(name: &str, want: &str) {
    let text = std::fs::read_to_string(readme()).unwrap();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&open).unwrap_or_else(|| panic!("README.md lacks {open}"));
    let (found, after) = rest.split_once(&close).unwrap_or_else(|| panic!("README.md lacks {close}"));
    if found == want {
        return;
    }
    if std::env::var("AUSCULT_UPDATE_README").is_ok_and(|v| v == "1") {
        std::fs::write(readme(), format!("{before}{open}{want}{close}{after}")).unwrap();
        return;
    }
    panic!("the section `{name}` of README.md is stale: run the tests once with AUSCULT_UPDATE_README=1");
}

#[test]
fn the_table_of_kernels_is_the_registrys() {
    let mut table = String::from("| kernel | reference | cpu | wgpu (WGSL) | cuda (PTX) |\n");
    table += "|---|---|---|---|---|\n";
    for kernel in REGISTRY {
        let cpu = if kernel.cpu.is_some() { "own" } else { "reference" };
        let ptx = if kernel.ptx.is_empty() { "no" } else { "yes" };
        let on_matrices = kernel.wgsl.iter().any(|form| form.needs == WgslNeeds::HalfMatrices16);
        let wgsl = if on_matrices { "yes, and on cooperative matrices" } else { "yes" };
        table += &format!("| `{}` | yes | {cpu} | {wgsl} | {ptx} |\n", kernel.name);
    }
    section("kernels", &table);
}

#[test]
fn the_program_is_the_one_that_is_compiled() {
    section("program", &format!("```rust\n{}```\n", include_str!("programs/library.rs")));
}

#[test]
fn the_program_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (model, audio) = (dir.path().join("model"), dir.path().join("music.wav"));
    init(Preset::Tiny, 3, &model).unwrap();
    let piece = auscult_audio::synth::render(2.0, 44_100, 3);
    let file = std::fs::File::create(&audio).unwrap();
    auscult_audio::wav::write(file, piece.sample_rate, &piece.samples, auscult_audio::wav::Encoding::Int16)
        .unwrap();
    // cargo builds examples with the tests, in a folder beside theirs
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/library");
    let run = Command::new(&program).args([&model, &audio]).output().unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    // 2 s at 50 frames a second, and the start column
    assert!(said.starts_with("101 positions, first value "), "{said}");
    let first: f32 = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(first.is_finite() && first != 0.0, "{said}");
}
