//! Lists the clips of an audio file: `cargo run --release -p auscult-audio --example clips -- FILE RATE WINDOW`

use std::error::Error;

use auscult_audio::{Windows, open};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, rate, window] = args.as_slice() else {
        return Err("usage: clips FILE RATE WINDOW".into());
    };
    let windows = Windows { window: Some(window.parse()?), ..Windows::default() };
    let mut source = open(file, rate.parse()?, &windows)?;
    println!("{} {:?} s, {}", source.info().codec, source.info().seconds(), source.info().gapless);
    for clip in source.by_ref() {
        let clip = clip?;
        let power: f64 = clip.samples.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let rms = (power / clip.samples.len() as f64).sqrt();
        let partial = if clip.partial { " partial" } else { "" };
        println!("{:.3}..{:.3} s rms {rms:.4}{partial}", clip.start_seconds, clip.end_seconds);
    }
    println!("{:?}, at most {} samples held", source.report(), source.most_buffered());
    println!("{}", source.describe_resampling());
    Ok(())
}
