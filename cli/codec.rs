//! `auscult codec`: audio to EnCodec codes and back.

use crate::audio_file::{Format, read_planes, write_audio};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_audio::wav::Encoding;
use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::config::CheckpointConfig;
use auscult_model::encodec::Encodec;
use auscult_model::encodec::config::EncodecConfig;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use auscult_runtime::weights::Weights;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Encode audio to a safetensors file: tensor `codes` [codebooks, frames]
    Encode {
        /// Any audio file, converted to the model's rate. Its channels are averaged, or, for a MusicGen that hears two, encoded
        /// one by one
        input: PathBuf,
        /// A MusicGen or EnCodec checkpoint directory
        #[arg(long)]
        model: PathBuf,
        /// The file to write
        #[arg(long)]
        out: PathBuf,
        /// Say on stderr which kernels run on this device, and how they are launched
        #[arg(long)]
        explain: bool,
    },
    /// Decode such a file to WAV or FLAC
    Decode {
        /// A safetensors file with a tensor `codes` [codebooks, frames] of integers
        input: PathBuf,
        /// A MusicGen or EnCodec checkpoint directory
        #[arg(long)]
        model: PathBuf,
        /// The file to write: FLAC of 16 bits where its name ends so, else WAV
        #[arg(long)]
        out: PathBuf,
        /// Write 32-bit floats in place of 16-bit integers
        #[arg(long)]
        float: bool,
        /// Say on stderr which kernels run on this device, and how they are launched
        #[arg(long)]
        explain: bool,
    },
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Encode { input, model, out, explain } => encode(context, input, model, out, *explain),
        Command::Decode { input, model, out, float, explain } => {
            let encoding = if *float { Encoding::Float32 } else { Encoding::Int16 };
            decode(context, input, model, out, encoding, *explain)
        }
    }
}

fn encode(context: &Context, input: &Path, model: &Path, out: &Path, explain: bool) -> Result<()> {
    let channels = channels(model)?;
    let codec = Encodec::open(model, context.backend()?)?;
    let rate = codec.config().sampling_rate;
    let (planes, _) = read_planes(input, rate, channels, usize::MAX)?;
    let samples = planes[0].len();
    if explain {
        eprint!("{}", codec.explain_encode(1, samples)?);
    }
    let spinner = context.bar(1, "{spinner} encoding {elapsed}");
    let codes = codes_of(&planes, channels, &codec)?;
    spinner.finish_and_clear();
    write_codes(out, &codes, codec.config(), Some(samples))?;
    let text = format!(
        "{}: {} codebooks x {} frames ({:.2} s)",
        out.display(),
        codes.codebooks(),
        codes.frames(),
        samples as f64 / f64::from(rate)
    );
    let json = json!({
        "out": out, "codebooks": codes.codebooks(), "frames": codes.frames(), "samples": samples, "sample_rate": rate,
    });
    context.result(&text, &json);
    Ok(())
}

/// Channels that a checkpoint's model hears: two of a stereo MusicGen.
fn channels(model: &Path) -> Result<usize> {
    Ok(match CheckpointConfig::load(model)? {
        CheckpointConfig::Musicgen(config) | CheckpointConfig::MusicgenMelody(config) => {
            config.decoder.audio_channels
        }
        CheckpointConfig::Encodec(_) => 1,
    })
}

/// The codes of channels, those of one codebook side by side. Where there are fewer than `channels`, the last is heard in place
/// of those that are missing.
pub fn codes_of(planes: &[Vec<f32>], channels: usize, codec: &Encodec) -> Result<Codes> {
    let of_planes = planes.iter().map(|plane| Ok(codec.encode(&[plane])?.remove(0)));
    let mut codes = of_planes.collect::<Result<Vec<_>>>()?;
    codes.resize(channels, codes[codes.len() - 1].clone());
    Ok(Codes::interleaved(&codes)?)
}

/// Writes codes, and how the audio behind them is read: of `samples` samples, where that is known.
///
/// # Errors
/// The file cannot be written.
pub fn write_codes(path: &Path, codes: &Codes, config: &EncodecConfig, samples: Option<usize>) -> Result<()> {
    let mut metadata = vec![("sample_rate".to_string(), config.sampling_rate.to_string())];
    metadata.extend(samples.map(|samples| ("samples".to_string(), samples.to_string())));
    metadata.push(("frames_per_second".to_string(), config.frames_per_second().to_string()));
    metadata.push(("codebook_size".to_string(), config.codebook_size.to_string()));
    let spec = TensorSpec::new("codes", DType::I32, [codes.codebooks(), codes.frames()]);
    write_safetensors(path, &metadata, &[spec], |_, w| {
        codes.values().iter().try_for_each(|code| w.write_all(&code.to_le_bytes()))
    })?;
    Ok(())
}

fn decode(
    context: &Context,
    input: &Path,
    model: &Path,
    out: &Path,
    encoding: Encoding,
    explain: bool,
) -> Result<()> {
    let format = Format::named("--out", out)?.unwrap_or(Format::Wav);
    if encoding == Encoding::Float32 && format == Format::Flac {
        return Err(Failure::usage("`--float` with flac, expected wav, which holds floats"));
    }
    let codes = read_codes(input)?;
    let channels = channels(model)?;
    let codec = Encodec::open(model, context.backend()?)?;
    codes
        .check(channels * codec.codebooks(), codec.config().codebook_size)
        .map_err(|e| Failure::input(format!("{}: {e}", input.display())))?;
    let rate = codec.config().sampling_rate;
    if explain {
        eprint!("{}", codec.explain_decode(codes.frames())?);
    }
    let spinner = context.bar(1, "{spinner} decoding {elapsed}");
    let planes = (0..channels).map(|c| Ok(codec.decode(&codes.channel(c, channels)?)?));
    let planes = planes.collect::<Result<Vec<_>>>()?;
    spinner.finish_and_clear();
    let samples = planes[0].len();
    let beyond = write_audio(out, planes, rate, (format, encoding))?.written.clipped;
    // floats keep what lies beyond full scale
    let clipped = if encoding == Encoding::Float32 { 0 } else { beyond };
    let seconds = samples as f64 / f64::from(rate);
    let text = format!(
        "{}: {samples} samples ({seconds:.2} s), {beyond} beyond full scale, {clipped} clipped",
        out.display()
    );
    let json = json!({
        "out": out, "samples": samples, "channels": channels, "sample_rate": rate, "beyond_full_scale": beyond,
        "clipped": clipped,
    });
    context.result(&text, &json);
    Ok(())
}

/// Reads the tensor `codes` [codebooks, frames] of any integer type.
fn read_codes(path: &Path) -> Result<Codes> {
    let file = Weights::open(path)?;
    let bad = |what: String| Failure::input(format!("{}: {what}", path.display()));
    let expected = "expected a tensor `codes` [codebooks, frames] of integers";
    let view = file.get("codes").ok_or_else(|| bad(format!("has no tensor `codes`; {expected}")))?;
    let &[codebooks, frames] = view.shape else {
        return Err(bad(format!("tensor `codes` has shape {:?}; {expected}", view.shape)));
    };
    if frames == 0 {
        return Err(bad(format!("tensor `codes` has shape {:?}, expected at least one frame", view.shape)));
    }
    let wide: Vec<i64> = match view.dtype {
        DType::U8 => view.bytes.iter().map(|&b| i64::from(b)).collect(),
        DType::U16 => each(view.bytes, u16::from_le_bytes).map(i64::from).collect(),
        DType::U32 => each(view.bytes, u32::from_le_bytes).map(i64::from).collect(),
        DType::I32 => each(view.bytes, i32::from_le_bytes).map(i64::from).collect(),
        DType::I64 => each(view.bytes, i64::from_le_bytes).collect(),
        dtype => return Err(bad(format!("tensor `codes` is {dtype}; {expected}"))),
    };
    let values = wide.iter().enumerate().map(|(at, &code)| {
        u32::try_from(code)
            .map_err(|_| bad(format!("code {code} at index {at} of `codes`, expected 0 or more")))
    });
    Codes::new(codebooks, frames, values.collect::<Result<_>>()?).map_err(|e| bad(e.to_string()))
}

fn each<T: 'static, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.chunks_exact(N).map(move |chunk| read(chunk.try_into().expect("chunks of N bytes")))
}
