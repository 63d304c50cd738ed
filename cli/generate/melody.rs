//! The melody that takes follow: from an audio file to its loudest pitch classes.

use crate::audio_file::read_planes;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{FileRecord, InputRecord};
use auscult_audio::chroma::{Chroma, RATE};
use auscult_model::musicgen::Decoder;
use auscult_model::musicgen::generate::Melody;
use std::path::Path;

/// What MusicGen Melody hears of a file, and where it is from. Nothing is separated: of a mix it hears the mix.
///
/// # Errors
/// A decoder that follows no melody; audio that cannot be read.
pub fn load(path: &Path, decoder: &Decoder, model: &Path) -> Result<(Melody, InputRecord)> {
    if !decoder.takes_melody() {
        let message = format!(
            "`--melody` with {}, which is no MusicGen Melody, expected a checkpoint of `model_type` \"musicgen_melody\"",
            model.display()
        );
        return Err(Failure::usage(message));
    }
    let (channels, audio) = read_planes(path, RATE, 1, usize::MAX)?;
    let melody = Melody::new(Chroma::new().classes(&channels[0])?, Chroma::frames_per_second())?;
    Ok((melody, InputRecord { file: FileRecord::of(path)?, audio: Some(audio) }))
}
