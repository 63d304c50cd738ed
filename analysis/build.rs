//! Tells the crate which git commit it was built from, where that is known.
//!
//! A source tree without git, or inside another project's repository, builds just the same, with no commit.

use std::path::Path;
use std::process::Command;

fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(dir).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string()).filter(|text| !text.is_empty())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(workspace) = crate_dir.parent() else { return };
    // a copy vendored into another repository must not carry that repository's commit
    let top =
        git(workspace, &["rev-parse", "--show-toplevel"]).and_then(|top| Path::new(&top).canonicalize().ok());
    if top.is_none() || top != workspace.canonicalize().ok() {
        return;
    }
    let mut watched = vec!["HEAD".to_string(), "packed-refs".to_string()];
    watched.extend(git(workspace, &["symbolic-ref", "-q", "HEAD"]));
    for name in watched {
        if let Some(path) = git(workspace, &["rev-parse", "--git-path", &name]) {
            let path = workspace.join(path);
            // cargo rebuilds every time for a file that does not exist
            if path.exists() {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
    if let Some(commit) = git(workspace, &["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=AUSCULT_GIT_COMMIT={commit}");
    }
}
