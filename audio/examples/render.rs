//! Renders pieces of the project's synthesiser into one WAV file, one seed a channel.
//!
//! `cargo run --release -p auscult-audio --example render -- OUT.wav SECONDS RATE int16|float SEED...`

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;

use auscult_audio::synth;
use auscult_audio::wav::{Encoding, WavWriter};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, seconds, rate, encoding, seeds @ ..] = args.as_slice() else {
        return Err("usage: render OUT.wav SECONDS RATE int16|float SEED...".into());
    };
    let (seconds, rate): (f64, u32) = (seconds.parse()?, rate.parse()?);
    let encoding = match encoding.as_str() {
        "int16" => Encoding::Int16,
        "float" => Encoding::Float32,
        other => return Err(format!("encoding is `{other}`, expected int16 or float").into()),
    };
    let channels = seeds
        .iter()
        .map(|seed| Ok(synth::render(seconds, rate, seed.parse()?).samples))
        .collect::<Result<Vec<_>, std::num::ParseIntError>>()?;
    let mut wav =
        WavWriter::new(BufWriter::new(File::create(out)?), rate, u16::try_from(channels.len())?, encoding)?;
    for frame in 0..channels.first().map_or(0, Vec::len) {
        for channel in &channels {
            wav.write(&channel[frame..=frame])?;
        }
    }
    wav.finish()?;
    Ok(())
}
