//! A teacher-forced pass whose stream is replaced at one site: what the model makes of a reconstruction.

use super::decoder::Decoder;
use super::generate::upload;
use super::sites::Site;
use super::teacher_forced::TeacherForced;
use crate::codes::Codes;
use crate::error::{ModelError, Result};
use auscult_kernels::ops::edit_rows::{EditRows, Kind, RECORD, Record};
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::{Backend, Edits, Insert, Operand, Place, Tensor};
use std::sync::Arc;

/// A pass over clips that is handed what stands at a site, and scores the codes behind it.
pub struct Spliced {
    pass: TeacherForced,
    /// f32 `[batch * positions, width]`.
    rows: Tensor,
    backend: Arc<dyn Backend>,
}

impl Decoder {
    /// A teacher-forced, unconditional pass over `batch` clips of `frames` frames in which other rows take the place of those
    /// at `site`. What a MusicGen Melody has in front of the columns stays as it is.
    ///
    /// # Errors
    /// As [`teacher_forced`](Self::teacher_forced); a site whose rows are not of the stream's width.
    pub fn spliced(&self, batch: usize, frames: usize, site: Site) -> Result<Spliced> {
        let width = self.config().hidden_size;
        if site.width(self.config()) != width {
            let found = format!("{site}, whose rows have {} values", site.width(self.config()));
            let expected = format!("a site of rows of {width}, the width of the stream");
            return Err(ModelError::Argument { argument: "site", found, expected });
        }
        let (in_front, columns) = (self.prefix_positions(0), frames.saturating_add(1));
        let backend = self.backend().clone();
        // a word for every position of every clip; a pass of so many fails by itself where they do not fit
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let places = (0..batch).flat_map(|clip| (0..in_front + columns).map(move |at| (clip, at)));
        let (records, positions): (Vec<Record>, Vec<u32>) = places
            .map(|(clip, at)| match at.checked_sub(in_front) {
                None => (Record::default(), 0),
                Some(column) => {
                    let patch = Record {
                        kind: Kind::Patch.word(),
                        direction: word(clip * columns),
                        end: word(columns),
                        rows: word(columns),
                        ..Record::default()
                    };
                    (patch, word(column))
                }
            })
            .unzip();
        let rows = TensorDesc::f32([batch * columns, width]);
        let rows = upload(&*backend, rows, &vec![0.0f32; batch * columns * width])?;
        let total = positions.len();
        let inputs = vec![
            Operand::Site,
            Operand::Tensor(upload(&*backend, TensorDesc::u32([total, 1, RECORD]), &records)?),
            Operand::Tensor(rows.clone()),
            Operand::Tensor(upload(&*backend, TensorDesc::u32([total]), &positions)?),
            Operand::Absent,
        ];
        let patch = Insert { op: Arc::new(EditRows { k: 0 }), inputs, place: Place::Within };
        let mut edits = Edits::new();
        edits.insert(site, vec![patch]).capture(Site::Logits, DType::F32);
        let pass = self.teacher_forced(batch, frames, edits)?;
        Ok(Spliced { pass, rows, backend })
    }
}

impl Spliced {
    /// Runs clips with `rows` f32 `[batch * positions, width]` at the site, clip after clip as
    /// [`TeacherForced::output`] has them, and returns the cross-entropy of each clip's codes.
    ///
    /// # Errors
    /// Another number of rows; as [`TeacherForced::run`].
    pub fn run(&self, codes: &[Codes], rows: &[f32]) -> Result<Vec<super::CrossEntropy>> {
        if rows.len() != self.rows.desc.elements() {
            let (found, expected) = (format!("{} values", rows.len()), self.rows.desc.to_string());
            return Err(ModelError::Argument { argument: "rows", found, expected });
        }
        self.backend.upload(&self.rows.span, bytemuck::cast_slice(rows))?;
        self.pass.run(codes)?;
        self.pass.cross_entropy(codes)
    }
}
