//! NVIDIA's assembler `ptxas`: where it is, and what it tells of a source.
#![allow(dead_code, reason = "each program uses its own part")]

use std::path::PathBuf;
use std::process::Command;

/// The assembler, and the newest device that it knows by a plain number.
pub struct Assembler {
    program: PathBuf,
    /// `sm_N` without a suffix.
    pub newest: String,
}

/// What the assembler tells of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory that the source declares.
    pub shared: u32,
    /// Bytes that spills store and load.
    pub spilled: u32,
    /// Bytes of stack.
    pub stack: u32,
}

impl Assembler {
    /// The program that `AUSCULT_PTXAS` names, or else the one on the PATH.
    pub fn find() -> Result<Self, String> {
        let program = PathBuf::from(std::env::var_os("AUSCULT_PTXAS").unwrap_or_else(|| "ptxas".into()));
        let help = Command::new(&program).arg("--help").output().map_err(|error| {
            format!(
                "needs ptxas ({}: {error}); the PyPI package nvidia-cuda-nvcc holds it",
                program.display()
            )
        })?;
        let newest = newest_device(&String::from_utf8_lossy(&help.stdout))?;
        Ok(Self { program, newest })
    }

    /// Its release, as it prints it.
    pub fn version(&self) -> Result<String, String> {
        let output = Command::new(&self.program).arg("--version").output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let release = said.split_whitespace().find_map(|word| word.strip_prefix('V'));
        release.map(str::to_string).ok_or_else(|| format!("ptxas --version names no release: {said}"))
    }

    /// Assembles the source of an entry for a device; a warning is an error.
    pub fn assemble(&self, entry: &str, source: &str, device: &str) -> Result<Usage, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = dir.path().join(format!("{entry}.ptx"));
        std::fs::write(&path, source).map_err(|e| e.to_string())?;
        let output = Command::new(&self.program)
            .args(["--verbose", "--gpu-name", device, "--output-file"])
            .arg(dir.path().join("out.cubin"))
            .arg(&path)
            .output()
            .map_err(|e| e.to_string())?;
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(said);
        }
        // what it only warns of is a fault here: a kernel that is not what its author thinks
        if let Some(warning) = said.lines().find(|line| line.contains("warning")) {
            return Err(warning.to_string());
        }
        usage(&said)
    }
}

/// The highest `sm_N` without a suffix in the assembler's help.
pub fn newest_device(help: &str) -> Result<String, String> {
    help.split('\'')
        .filter_map(|word| word.strip_prefix("sm_")?.parse::<u32>().ok())
        .max()
        .map(|number| format!("sm_{number}"))
        .ok_or_else(|| "ptxas --help names no device".into())
}

/// Reads what `--verbose` prints of one entry.
pub fn usage(said: &str) -> Result<Usage, String> {
    let number_before = |what: &str| {
        let (before, _) = said.split_once(what)?;
        before.split(|c: char| !c.is_ascii_digit()).next_back().and_then(|digits| digits.parse::<u32>().ok())
    };
    let need =
        |what: &str| number_before(what).ok_or_else(|| format!("ptxas does not tell `{what}`: {said}"));
    Ok(Usage {
        registers: need(" registers")?,
        // left out where there is none
        shared: number_before(" bytes smem").unwrap_or(0),
        spilled: need(" bytes spill stores")? + need(" bytes spill loads")?,
        stack: need(" bytes stack frame")?,
    })
}
