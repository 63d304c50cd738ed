//! What stands in front of the columns and the columns of a prompt at once, into the caches.

use super::interventions::{Points, upload};
use super::state::State;
use crate::error::Result;
use crate::musicgen::graph::{
    CACHE_PAGES, CACHE_POSITIONS, CODES, Caches, Forward, IDS, PREFIX, TEXT, TEXT_LENGTHS,
};
use auscult_kernels::TensorDesc;
use auscult_runtime::{Backend, Edits, Graph, Program, Tensor};
use std::sync::Arc;

/// A pass over so many positions and columns of the rows of one take.
pub(crate) struct Prefill {
    /// Positions in front of the columns.
    pub prefix: usize,
    pub columns: usize,
    program: Program,
    records: Vec<Tensor>,
}

/// What a take is begun with.
pub(crate) struct Beginning<'a> {
    pub columns: Columns<'a>,
    /// Text f32 `[tokens, hidden]`, and how many tokens, of those that the generator has room for.
    pub text: Option<(&'a [f32], usize)>,
    /// Pages of each row.
    pub pages: &'a [Vec<u32>],
    /// Records of each row at each point.
    pub records: &'a [Vec<Vec<u32>>],
}

/// The columns, and what stands in front of them.
pub(crate) enum Columns<'a> {
    /// Codes `[codebooks, frames]`, frames one less than the columns.
    Codes(&'a [u32]),
    /// Ids of every row, and the table that those in front of the columns are in: see [`crate::musicgen::prefix`].
    Behind { ids: &'a [u32], table: &'a [f32] },
}

impl Prefill {
    /// A pass over the columns of `forward`, with the interventions of `points` and `captures` on top.
    pub fn new(
        forward: Forward<'_>,
        state: &State,
        points: &Points,
        mut edits: Edits,
        backend: &Arc<dyn Backend>,
    ) -> Result<Self> {
        let (rows, prefix, columns) = (forward.batch, forward.prefix, forward.columns);
        let steps = prefix + columns;
        let steps_u32 = u32::try_from(steps).expect("a window has fewer positions");
        let positions: Vec<u32> = (0..rows).flat_map(|_| 0..steps_u32).collect();
        let positions = upload(&**backend, TensorDesc::u32([rows * steps]), &positions)?;
        let records = points.records(rows * steps, &**backend)?;
        for (site, inserts) in points.inserts(&records, &positions) {
            edits.insert(site, inserts);
        }
        let caches = Caches { layers: &state.layers, pages_per_row: state.pages.desc.shape[1] };
        let graph = Forward { caches: Some(caches), ..forward }.build(edits)?;
        Ok(Self { prefix, columns, program: Program::new(backend.clone(), graph)?, records })
    }

    /// Its launches.
    pub fn graph(&self) -> &Graph {
        self.program.graph()
    }

    /// Runs it.
    pub fn run(&self, begin: &Beginning<'_>, backend: &dyn Backend) -> Result<()> {
        let rows = begin.pages.len();
        for (point, table) in self.records.iter().enumerate() {
            let words: Vec<u32> = begin
                .records
                .iter()
                .flat_map(|row| {
                    // nothing is done in front of the columns
                    let nothing = vec![0; self.prefix * row[point].len()];
                    nothing.into_iter().chain(row[point].repeat(self.columns))
                })
                .collect();
            backend.upload(&table.span, bytemuck::cast_slice(&words))?;
        }
        let pages: Vec<u32> = begin.pages.concat();
        let positions = vec![0_u32; rows];
        let mut inputs: Vec<(&str, &[u8])> = vec![
            (CACHE_PAGES, bytemuck::cast_slice(&pages)),
            (CACHE_POSITIONS, bytemuck::cast_slice(&positions)),
        ];
        let codes;
        match begin.columns {
            Columns::Codes(one) => {
                codes = one.repeat(rows);
                inputs.push((CODES, bytemuck::cast_slice(&codes)));
            }
            Columns::Behind { ids, table } => {
                inputs.push((IDS, bytemuck::cast_slice(ids)));
                inputs.push((PREFIX, bytemuck::cast_slice(table)));
            }
        }
        let (states, mut lengths);
        if let Some((values, tokens)) = begin.text {
            // only the first row, the conditional one, sees it
            states = [values, &vec![0.0; values.len() * (rows - 1)]].concat();
            lengths = vec![0_u32; rows];
            lengths[0] = u32::try_from(tokens).expect("a text has fewer tokens");
            inputs.push((TEXT, bytemuck::cast_slice(&states)));
            inputs.push((TEXT_LENGTHS, bytemuck::cast_slice(&lengths)));
        }
        Ok(self.program.run(&inputs)?)
    }

    /// Bytes of a captured output of the last run, `[rows, columns, width]`.
    pub fn output(&self, name: &str, rows: usize) -> Result<Vec<u8>> {
        let bytes = self.program.output(name)?;
        let (one, steps) = (bytes.len() / rows, self.prefix + self.columns);
        Ok(bytes.chunks(one).flat_map(|row| &row[one / steps * self.prefix..]).copied().collect())
    }
}
