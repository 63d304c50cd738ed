//! Columns given as they are.

use super::common::compare::measure;
use super::common::golden::Case;
use super::{Check, Executor, Layout, Stored, checkpoint};
use auscult_kernels::DType;
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_runtime::Edits;

/// The reference's own columns give its logits, a column that changes changes what stands behind it, and ids that cannot be
/// are refused.
pub fn as_given(executor: &Executor) -> Check {
    let case = Case::committed("tiny");
    let dir = checkpoint(&case, &Layout::default());
    let decoder = Decoder::open(dir.path(), executor.backend.clone(), &DecoderOptions::default())?;
    let beyond = u32::try_from(decoder.config().special_token() + 1)?;
    let logits = || {
        let mut edits = Edits::new();
        edits.capture("logits", DType::F32);
        edits
    };
    for run in case.decoder_runs().iter().filter(|run| run.facts.weights == Stored::F32) {
        let (facts, want) = (&run.facts, run.site("logits"));
        let (batch, codebooks, columns) = (facts.batch, facts.codebooks, facts.steps);
        let mut ids: Vec<u32> = Vec::with_capacity(batch * columns * codebooks);
        for row in run.delayed().i32().chunks(codebooks * columns) {
            let column = |c: usize| row.iter().skip(c).step_by(columns).map(|id| id.cast_unsigned());
            ids.extend((0..columns).flat_map(column));
        }
        let pass = decoder.column_pass(batch, columns, 0, logits())?;
        pass.run(&ids, &vec![None; batch])?;
        let delayed = pass.output_f32("logits")?;
        measure(&format!("{} as given", run.name), &delayed, want.f32(), executor.tolerance())?;

        // another code in column 1 of the first row: only what stands behind the change is another
        ids[codebooks] = u32::from(ids[codebooks] == 0);
        pass.run(&ids, &vec![None; batch])?;
        let changed = pass.output_f32("logits")?;
        let row = delayed.len() / (batch * columns);
        let same = |column: usize| {
            let at = column * row..(column + 1) * row;
            changed[at.clone()] == delayed[at]
        };
        if !same(0) || (1..columns).any(same) || (columns..batch * columns).any(|column| !same(column)) {
            return Err(format!("{}: column 1 changed, and not just what stands behind it", run.name).into());
        }

        for (bad, texts, named) in [
            (ids[1..].to_vec(), batch, "ids"),
            (vec![beyond; ids.len()], batch, "ids"),
            (ids.clone(), batch + 1, "texts"),
        ] {
            match pass.run(&bad, &vec![None; texts]) {
                Err(error) if error.to_string().contains(named) => {}
                other => return Err(format!("{}: {other:?} of bad {named}", run.name).into()),
            }
        }
    }
    let most = decoder.trained_frames() + 1;
    for columns in [0, most + 1] {
        match decoder.column_pass(1, columns, 0, logits()) {
            Err(error) if error.to_string().contains("columns") => {}
            Err(error) => return Err(format!("{columns} columns: {error}").into()),
            Ok(_) => return Err(format!("a pass over {columns} columns").into()),
        }
    }
    Ok(())
}
