//! Running the program, and looking at what it leaves.

use auscult_audio::synth::render;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The program under test.
pub const AUSCULT: &str = env!("CARGO_BIN_EXE_auscult");

static MODEL: OnceLock<PathBuf> = OnceLock::new();

/// Makes the checkpoint that all tests share; it is deleted with the handle.
pub fn make_model() -> TempDir {
    let dir = folder();
    let path = dir.path().join("model");
    MODEL.set(path).expect("made once, before the tests");
    run(dir.path(), "model init --preset tiny --seed 3 --out model").ok();
    dir
}

/// The tiny checkpoint that all tests share.
pub fn model() -> &'static Path {
    MODEL.get().expect("made before the tests")
}

/// A folder for temporary files.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("auscult-cli-").tempdir().expect("a folder for temporary files")
}

/// A committed audio file.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio").join(name)
}

/// The program with the words of `line`, in `dir`, on the processor unless the line names a device. `MODEL` stands for
/// the shared checkpoint, `FIX/x` for a committed audio file.
pub fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(AUSCULT);
    command.current_dir(dir).stdin(Stdio::null());
    if !line.contains("--device") {
        command.args(["--device", "cpu"]);
    }
    for word in line.split_whitespace() {
        match (word, word.strip_prefix("FIX/")) {
            ("MODEL", _) => command.arg(model()),
            (_, Some(name)) => command.arg(fixture(name)),
            (word, None) => command.arg(word),
        };
    }
    command
}

/// Runs [`command`] to its end.
pub fn run(dir: &Path, line: &str) -> Ran {
    finished(line, &mut command(dir, line))
}

/// Runs any command to its end; `line` names it in messages.
pub fn finished(line: &str, command: &mut Command) -> Ran {
    Ran::of(line, command.output().unwrap_or_else(|e| panic!("`{line}` cannot be started: {e}")))
}

/// Starts [`command`]; what it says waits for [`ended`].
pub fn start(dir: &Path, line: &str) -> Child {
    let mut command = command(dir, line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Waits for the end of what was started.
pub fn ended(line: &str, child: Child) -> Ran {
    Ran::of(line, child.wait_with_output().expect("it can be waited for"))
}

/// Sends Ctrl-C to what was started, and waits for its end.
#[cfg(unix)]
pub fn interrupted(line: &str, child: Child) -> Ran {
    let interrupt = format!("kill -INT {}", child.id());
    finished(&interrupt, Command::new("sh").args(["-c", &interrupt])).ok();
    ended(line, child)
}

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Ran {
    pub line: String,
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(line: &str, output: Output) -> Self {
        Self {
            line: line.to_string(),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("results are UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("messages are UTF-8"),
        }
    }

    /// It succeeded.
    pub fn ok(self) -> Self {
        self.exits(0, &[])
    }

    /// It ended with `code`, and its message holds every one of `parts`.
    pub fn exits(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        for part in parts {
            assert!(self.stderr.contains(part), "expected `{part}` on stderr\n{self}");
        }
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// Stdout, which is one JSON document and nothing else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is no JSON document: {e}\n{self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, code, stdout, stderr } = self;
        write!(f, "auscult {line}\nexit code {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// Every file below `dir`, by its path with `/`.
pub fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut within = vec![String::new()];
    while let Some(prefix) = within.pop() {
        for entry in fs::read_dir(dir.join(&prefix)).expect("the folder is there") {
            let entry = entry.expect("the folder can be listed");
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type().expect("it has a type").is_dir() {
                true => within.push(format!("{name}/")),
                false => drop(files.insert(name, fs::read(entry.path()).expect("it can be read"))),
            }
        }
    }
    files
}

/// Names of what lies in `dir`, hidden files too.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("it can be listed").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The JSON in a file.
pub fn json_file(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rows of a store's index.
pub fn index(store: &Path) -> Vec<Value> {
    let text = fs::read_to_string(store.join("index.jsonl")).expect("a finished store has an index");
    text.lines().map(|line| serde_json::from_str(line).expect("a row is a JSON object")).collect()
}

/// A tensor of a safetensors file: its type, shape and bytes.
pub fn tensor(path: &Path, name: &str) -> (String, Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec())
}

/// Little-endian floats.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}

/// Rows of a hook's first shard.
pub fn resid(store: &Path, hook: &str) -> (String, Vec<usize>, Vec<u8>) {
    tensor(&store.join(hook).join("00000.safetensors"), "resid")
}

/// A 16-bit WAV file.
pub fn wav(channels: u16, rate: u32, samples: &[i16]) -> Vec<u8> {
    let length = u32::try_from(2 * samples.len()).expect("a short file");
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + length).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend(rate.wrapping_mul(2 * u32::from(channels)).to_le_bytes());
    bytes.extend((2 * channels).to_le_bytes());
    bytes.extend(16_u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(length.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// Writes music as a mono WAV file.
pub fn music(path: &Path, seconds: f64, rate: u32, seed: u64) {
    let samples: Vec<i16> =
        render(seconds, rate, seed).samples.iter().map(|x| (x * 32_767.0).round() as i16).collect();
    fs::write(path, wav(1, rate, &samples)).expect("the folder is there");
}

/// Holds `SHA256SUMS` of a folder against its files with the tool that users have.
pub fn check_sums(dir: &Path) {
    let mut sums = Command::new("sha256sum");
    sums.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(dir);
    finished("sha256sum --check", &mut sums).ok();
    let listed =
        fs::read_to_string(dir.join("SHA256SUMS")).expect("a finished store has one").lines().count();
    assert_eq!(listed + 1, tree(dir).len(), "every file but SHA256SUMS itself is listed");
}
