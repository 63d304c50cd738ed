//! The command line of `auscult generate`, and the small languages in it.

use super::edits::EditArgs;
use crate::audio_file::Format;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::capture::Batch;
use auscult_model::musicgen::generate::Sampling;
use auscult_model::t5::TextPad;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(clap::Args)]
pub struct Args {
    /// A MusicGen checkpoint directory
    #[arg(long)]
    pub model: PathBuf,
    /// Length of every take, the audio prompt's included
    #[arg(long, value_name = "S")]
    pub seconds: f64,
    /// A directory that is empty or absent, or a file `*.wav` or `*.flac` for a single take
    #[arg(long, value_name = "DIR|FILE.wav|FILE.flac")]
    pub out: PathBuf,
    /// What the music is told to be; given again for more prompts. Unconditional without it and `--melody`
    #[arg(long, value_name = "STRING")]
    pub text: Vec<String>,
    /// A UTF-8 file with a prompt on every line; of a file `*.jsonl` objects {"text": ..., "seconds": ...}, whose seconds are
    /// those of `--seconds` where they are left out
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub prompts: Option<PathBuf>,
    /// Texts shorter than the longest: mask lets each see itself alone, attend pads them as audiocraft does
    #[arg(long, value_name = "mask|attend", default_value = "mask")]
    pub text_pad: TextPad,
    /// Audio whose melody every take follows, with a MusicGen Melody: a mix, or a stem of your own (nothing is
    /// separated). Where it ends it begins again
    #[arg(long, value_name = "FILE")]
    pub melody: Option<PathBuf>,
    /// Audio that every take continues
    #[arg(long, value_name = "FILE")]
    pub audio_prompt: Option<PathBuf>,
    /// How much of its beginning, at most; all of it by default
    #[arg(long, value_name = "S", requires = "audio_prompt")]
    pub prompt_seconds: Option<f64>,
    /// Chooses the noise, together with the number of the take
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Takes of each prompt
    #[arg(long, value_name = "N", default_value = "1")]
    pub count: NonZeroUsize,
    /// Every take hears the same noise
    #[arg(long)]
    pub same_noise: bool,
    /// Guidance: what the difference that text and melody make to the scores is multiplied by
    #[arg(long, value_name = "G", default_value_t = Sampling::default().guidance, allow_negative_numbers = true)]
    pub cfg: f32,
    /// Draw from so many of the best codes; 0 for all
    #[arg(long, value_name = "K", default_value_t = Sampling::default().top_k)]
    pub top_k: u32,
    /// Draw from the best codes that hold this share of probability; 0 for all
    #[arg(long, value_name = "P", default_value_t = Sampling::default().top_p, allow_negative_numbers = true)]
    pub top_p: f32,
    /// What scores are divided by
    #[arg(long, value_name = "T", default_value_t = Sampling::default().temperature, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Take the best code instead of drawing one
    #[arg(long)]
    pub greedy: bool,
    /// What a take longer than a window sees of itself: `stride:S`, the window moves on by S seconds when it is full, or
    /// `full`, everything
    #[arg(long, value_name = "stride:S|full", default_value = "stride:18")]
    pub context: Sight,
    /// Length of a window; what the model was trained on by default
    #[arg(long, value_name = "S")]
    pub window: Option<f64>,
    /// Takes that play side by side: auto or a number
    #[arg(long, value_name = "N", default_value = "auto")]
    pub batch: Batch,
    /// wav, or flac of 16 bits; what the name of `--out` ends in by default, wav for a directory
    #[arg(long, value_name = "wav|flac")]
    pub format: Option<Format>,
    /// Go on with a run of the same settings that was stopped or killed: takes that are whole are kept
    #[arg(long, conflicts_with = "stream")]
    pub resume: bool,
    /// Write 32-bit floats in place of 16-bit integers
    #[arg(long)]
    pub float: bool,
    /// Write the only take to standard output as WAV while it plays, beside `--out`
    #[arg(long)]
    pub stream: bool,
    /// Say on stderr which kernels play the first take on this device, and how they are launched
    #[arg(long)]
    pub explain: bool,
    #[command(flatten, next_help_heading = "Edits")]
    pub edits: EditArgs,
    /// Sites whose rows are kept while takes play: hook_layers.{1,5}, layers.3.mlp_out, ...
    #[arg(long, value_name = "LIST", requires = "capture", help_heading = "Capture")]
    pub hooks: Option<String>,
    /// The store to put them in: a directory that is empty or absent. Each take is a clip, `take-000/cond`, and with
    /// guidance a second one, `take-000/uncond`
    #[arg(long, value_name = "STORE", requires = "hooks", help_heading = "Capture")]
    pub capture: Option<PathBuf>,
}

/// What a long take sees of itself, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sight {
    /// A window that moves on by so much.
    Stride(f64),
    /// Everything.
    Full,
}

impl FromStr for Sight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let stride = text.strip_prefix("stride:").and_then(|seconds| seconds.parse::<f64>().ok());
        match (text, stride) {
            ("full", _) => Ok(Self::Full),
            (_, Some(seconds)) if seconds.is_finite() && seconds > 0.0 => Ok(Self::Stride(seconds)),
            _ => Err(format!("`{text}`, expected `stride:S` with S seconds above 0, or `full`")),
        }
    }
}

/// Frames beyond which no count of positions fits the device's words.
const MOST_FRAMES: f64 = 1e9;

/// `seconds` of `argument` in frames, at least one.
pub fn frames(argument: &str, seconds: f64, rate: f64) -> Result<usize> {
    let frames = (seconds * rate).round();
    if !(1.0..=MOST_FRAMES).contains(&frames) {
        let most = MOST_FRAMES / rate;
        let message =
            format!("`{argument}` is {seconds:?} s, expected one frame of {} s to {most} s", 1.0 / rate);
        return Err(Failure::usage(message));
    }
    // whole, and bounded above
    Ok(frames as usize)
}

impl Args {
    /// How codes are chosen.
    ///
    /// # Errors
    /// A setting that no scores can be sampled with.
    pub fn sampling(&self) -> Result<Sampling> {
        let sampling = Sampling {
            guidance: self.cfg,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            greedy: self.greedy,
        };
        sampling.check()?;
        Ok(sampling)
    }

    /// Whether a single file is asked for.
    ///
    /// # Errors
    /// A name of audio that is not written.
    pub fn single_file(&self) -> Result<bool> {
        Ok(self.named_format()?.is_some())
    }

    /// How audio is written.
    ///
    /// # Errors
    /// A format that the file's name contradicts, or that does not hold floats.
    pub fn format(&self) -> Result<Format> {
        let format = match (self.format, self.named_format()?) {
            (Some(asked), Some(named)) if asked != named => {
                let message = format!(
                    "`--format` is {asked} and `--out` is {}, expected one and the same",
                    self.out.display()
                );
                return Err(Failure::usage(message));
            }
            (asked, named) => asked.or(named).unwrap_or(Format::Wav),
        };
        if self.float && format == Format::Flac {
            return Err(Failure::usage("`--float` with flac, expected wav, which holds floats"));
        }
        Ok(format)
    }

    fn named_format(&self) -> Result<Option<Format>> {
        Format::named("--out", &self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sights_are_read() {
        assert_eq!("stride:18".parse(), Ok(Sight::Stride(18.0)));
        assert_eq!("stride:0.5".parse(), Ok(Sight::Stride(0.5)));
        assert_eq!("full".parse(), Ok(Sight::Full));
        for bad in ["", "stride", "stride:", "stride:0", "stride:-1", "stride:NaN", "stride:inf", "18"] {
            assert!(bad.parse::<Sight>().unwrap_err().contains("expected"), "{bad}");
        }
    }

    #[test]
    fn seconds_are_rounded_to_frames() {
        assert_eq!(frames("--seconds", 0.03, 50.0).unwrap(), 2);
        for bad in [0.0, -1.0, 0.009, f64::NAN, f64::INFINITY, 1e30] {
            let error = frames("--seconds", bad, 50.0).unwrap_err().to_string();
            assert!(error.contains("`--seconds`") && error.contains("0.02 s"), "{error}");
        }
    }
}
