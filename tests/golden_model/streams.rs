//! Audio of codes that are still being made is that of the whole.

use super::common::compare::measure;
use super::common::golden::Case;
use super::{Check, Executor, Layout, checkpoint};
use auscult_model::Codes;
use auscult_model::encodec::Encodec;

/// Codes come in blocks, as a generator makes them.
pub fn streams(executor: &Executor) -> Check {
    let case = Case::committed("tiny");
    let dir = checkpoint(&case, &Layout::default());
    let codec = Encodec::open(dir.path(), executor.backend.clone())?;
    let (codebooks, entries) = (codec.codebooks(), codec.config().codebook_size);
    let hop = codec.config().hop_length();
    // longer than one step of the recurrent part, frame by frame, in one piece; an interpreter takes minutes for as much
    let cases: &[(usize, usize)] =
        if executor.name == "cpu" { &[(300, 70), (40, 1), (5, 50)] } else { &[(24, 10)] };
    for &(frames, block) in cases {
        let code = |i: usize| u32::try_from((i * 31 + i * i) % entries).expect("a small codebook");
        let first = |count: usize| {
            let row = |q: usize| (0..count).map(move |t| code(q * 1000 + t));
            Codes::new(codebooks, count, (0..codebooks).flat_map(row).collect())
        };
        let whole = codec.decode(&first(frames)?)?;
        let mut stream = codec.stream(frames);
        let mut audio = Vec::new();
        for made in (block..frames).step_by(block).chain([frames]) {
            audio.extend(stream.push(&first(made)?)?);
            if audio.len() != stream.done() * hop || stream.done() > made {
                return Err(format!("{} samples of {} frames", audio.len(), stream.done()).into());
            }
            if frames == 300 && made == 280 && stream.done() < 200 {
                return Err(format!("of 280 frames, {} are ready", stream.done()).into());
            }
        }
        if audio.len() != frames * hop {
            return Err(format!("{} samples, expected those of {frames} frames", audio.len()).into());
        }
        measure(&format!("{frames} frames by {block}"), &audio, &whole, executor.tolerance())?;
        if stream.push(&first(frames + 1)?).is_ok() {
            return Err("more frames than were announced are taken".into());
        }
    }
    Ok(())
}
