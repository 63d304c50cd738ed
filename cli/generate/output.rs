//! What a run leaves: audio, codes, and a record of each take.

use super::progress::JOURNAL;
use crate::audio_file::{Audio, Format, write_audio};
use crate::codec::write_codes;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{RUN_JSON, RunRecord};
use auscult_audio::integrated_loudness;
use auscult_audio::wav::Encoding;
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::generate::{Generated, Take, WindowRecord};
use auscult_runtime::files::{FileError, atomic_write_bytes};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The records of all takes, one a line.
const TAKES: &str = "takes.jsonl";

/// Takes of one run at most.
const MOST_TAKES: usize = 1 << 20;

/// Where a run writes.
pub enum Target {
    /// A directory with every take.
    Dir(PathBuf),
    /// A file with the only one.
    File(PathBuf),
}

/// A take, as people know it.
pub struct Told {
    /// What it is for: `take`, `edited`, or its part in an experiment.
    pub label: String,
    /// The text.
    pub text: Option<String>,
    /// The name of the file whose melody it follows.
    pub melody: Option<String>,
    /// What is done to it.
    pub edits: Vec<Value>,
}

impl Target {
    /// Refuses a place that cannot be written to; nothing is made yet.
    pub fn check(out: &Path, single_file: bool, resume: bool) -> Result<Self> {
        match (single_file, resume) {
            (true, true) => {
                let message = format!(
                    "`--resume` and `--out` is the file {}, expected a directory: a single take begins again",
                    out.display()
                );
                return Err(Failure::usage(message));
            }
            (true, false) => return Ok(Self::File(out.to_path_buf())),
            (false, true) if [JOURNAL, RUN_JSON].iter().any(|file| out.join(file).exists()) => {}
            (false, _) => check_empty("--out", out, resume)?,
        }
        Ok(Self::Dir(out.to_path_buf()))
    }

    /// Refuses more takes than a file or a directory holds.
    pub fn check_takes(&self, takes: usize) -> Result<()> {
        match self {
            Self::Dir(_) if takes > MOST_TAKES => Err(Failure::usage(format!(
                "`--count`: {takes} takes, expected at most {MOST_TAKES} of all prompts"
            ))),
            Self::File(file) if takes != 1 => {
                let message = format!(
                    "`--out` is the file {}, which holds one take, and there are {takes}; expected a directory",
                    file.display()
                );
                Err(Failure::usage(message))
            }
            _ => Ok(()),
        }
    }

    /// Makes the directory.
    pub fn create(&self) -> Result<()> {
        if let Self::Dir(dir) = self {
            std::fs::create_dir_all(dir).map_err(|e| FileError::io(dir, "create directory", e))?;
        }
        Ok(())
    }

    /// The path of a take's audio.
    pub fn audio(&self, number: usize, format: Format) -> PathBuf {
        match self {
            Self::Dir(dir) => dir.join(format!("take-{number:03}.{format}")),
            Self::File(file) => file.clone(),
        }
    }

    /// Writes a take's audio and codes; returns its record.
    pub fn write_take(
        &self,
        number: usize,
        take: &Take,
        told: &Told,
        made: &Generated,
        codec: &Encodec,
        form: (Format, Encoding),
    ) -> Result<Value> {
        let rate = codec.config().sampling_rate;
        let channels = made.codes.codebooks() / codec.codebooks();
        let planes = (0..channels).map(|c| Ok(codec.decode(&made.codes.channel(c, channels)?)?));
        let planes = planes.collect::<Result<Vec<_>>>()?;
        let path = self.audio(number, form.0);
        let Audio { samples, channels, written } = write_audio(&path, planes, rate, form)?;
        let beyond = written.clipped;
        let mut record = json!({ "take": number, "file": name(&path) });
        if let Self::Dir(dir) = self {
            let codes = dir.join(format!("take-{number:03}.codes.safetensors"));
            write_codes(&codes, &made.codes, codec.config(), None)?;
            record["codes"] = json!(name(&codes));
        }
        let peak = samples.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        let more = json!({
            "sample_rate": rate,
            "channels": channels,
            "samples": samples.len() / usize::from(channels),
            "beyond_full_scale": beyond,
            "peak": peak,
            "peak_dbfs": (peak > 0.0).then(|| 20.0 * f64::from(peak).log10()),
            "loudness_lufs": integrated_loudness(&samples, channels, rate),
            "windows": made.windows.iter().map(|window| describe(window, take)).collect::<Vec<_>>(),
        });
        let known = describe_take(take, told, codec.config().frames_per_second());
        let record_map = record.as_object_mut().expect("an object");
        for part in [known, more] {
            let Value::Object(part) = part else { unreachable!("both are written as objects") };
            record_map.extend(part);
        }
        Ok(record)
    }

    /// Writes the records of the takes that were made, and of the run; returns where the last one lies.
    pub fn finish(&self, takes: &[Value], mut record: RunRecord) -> Result<PathBuf> {
        record.finish();
        match self {
            Self::Dir(dir) => {
                let lines: String = takes.iter().map(|take| format!("{take}\n")).collect();
                atomic_write_bytes(dir.join(TAKES), lines.as_bytes())?;
                record.write(dir)?;
                Ok(dir.join(RUN_JSON))
            }
            Self::File(file) => {
                record.details.insert("take".into(), takes.first().cloned().unwrap_or_default());
                Ok(record.write_beside(file)?)
            }
        }
    }
}

/// What is known of a take before it is played.
pub fn describe_take(take: &Take, told: &Told, frames_per_second: f64) -> Value {
    let sampling = &take.sampling;
    json!({
        "label": told.label,
        "seconds": take.frames as f64 / frames_per_second,
        "frames": take.frames,
        "prompt_frames": take.prompt.as_ref().map_or(0, |prompt| prompt.frames()),
        "text": told.text,
        "text_tokens": take.text.as_ref().map(|text| text.tokens()),
        "melody": told.melody,
        "seed": take.seed,
        "row": take.row,
        "settings": {
            "cfg": sampling.guidance, "temperature": sampling.temperature, "top_k": sampling.top_k,
            "top_p": sampling.top_p, "greedy": sampling.greedy,
        },
        "edits": told.edits,
    })
}

/// Refuses a directory that holds something already.
pub fn check_empty(argument: &str, dir: &Path, resume: bool) -> Result<()> {
    let failed = |e| FileError::io(dir, "list", e);
    let mut entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let Some(entry) = entries.next() else { return Ok(()) };
    let holds = entry.map_err(failed)?.file_name().display().to_string();
    let expected = match resume {
        true => "expected a run to go on with, or an empty or absent one",
        false if dir.join(JOURNAL).exists() => "expected an empty or absent one, or `--resume`",
        false => "expected an empty or absent one",
    };
    let message = format!(
        "`{argument}` is the directory {}, which is not empty (it holds `{holds}`), {expected}",
        dir.display()
    );
    Err(Failure::usage(message))
}

/// A file's own name, as records beside it use it.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().display().to_string()
}

fn describe(window: &WindowRecord, take: &Take) -> Value {
    json!({
        "frames": [window.frames.start, window.frames.end],
        "sees_from": window.sees_from,
        "prompt_frames": window.prompt_frames,
        "audio_prompt_in_sight": window.prompt_frames > 0,
        "text_in_sight": take.text.is_some(),
    })
}
