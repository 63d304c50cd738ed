//! `auscult codec`: audio to EnCodec codes and back.

use crate::context::Context;
use crate::failure::Failure;
use crate::wav::write_wav;
use anyhow::Result;
use auscult_audio::wav::Encoding;
use auscult_kernels::DType;
use auscult_model::Codes;
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
        /// Any audio file; channels are averaged, the rate is converted
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
    /// Decode such a file to WAV
    Decode {
        /// A safetensors file with a tensor `codes` [codebooks, frames] of integers
        input: PathBuf,
        /// A MusicGen or EnCodec checkpoint directory
        #[arg(long)]
        model: PathBuf,
        /// The WAV file to write
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
    let codec = Encodec::open(model, context.backend()?)?;
    let rate = codec.config().sampling_rate;
    let samples = auscult_audio::load(input, rate)?;
    if explain {
        eprint!("{}", codec.explain_encode(1, samples.len())?);
    }
    let spinner = context.bar(1, "{spinner} encoding {elapsed}");
    let codes = codec.encode(&[&samples])?.remove(0);
    spinner.finish_and_clear();
    write_codes(out, &codes, codec.config(), Some(samples.len()))?;
    let text = format!(
        "{}: {} codebooks x {} frames ({:.2} s)",
        out.display(),
        codes.codebooks(),
        codes.frames(),
        samples.len() as f64 / f64::from(rate)
    );
    let json = json!({
        "out": out, "codebooks": codes.codebooks(), "frames": codes.frames(), "samples": samples.len(), "sample_rate": rate,
    });
    context.result(&text, &json);
    Ok(())
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
    let codes = read_codes(input)?;
    let codec = Encodec::open(model, context.backend()?)?;
    codes
        .check(codec.codebooks(), codec.config().codebook_size)
        .map_err(|e| Failure::input(format!("{}: {e}", input.display())))?;
    let rate = codec.config().sampling_rate;
    if explain {
        eprint!("{}", codec.explain_decode(codes.frames())?);
    }
    let spinner = context.bar(1, "{spinner} decoding {elapsed}");
    let audio = codec.decode(&codes)?;
    spinner.finish_and_clear();
    let beyond = write_wav(out, &audio, rate, encoding)?.clipped;
    // floats keep what lies beyond full scale
    let clipped = if encoding == Encoding::Float32 { 0 } else { beyond };
    let seconds = audio.len() as f64 / f64::from(rate);
    let text = format!(
        "{}: {} samples ({seconds:.2} s), {beyond} beyond full scale, {clipped} clipped",
        out.display(),
        audio.len()
    );
    let json = json!({
        "out": out, "samples": audio.len(), "sample_rate": rate, "beyond_full_scale": beyond, "clipped": clipped,
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
