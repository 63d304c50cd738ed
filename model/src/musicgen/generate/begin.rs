//! How a take begins: what stands in front of its columns and the columns of its prompt, in the caches.

use super::generator::{Capture, Generator, Window};
use super::prefill::{Beginning, Columns, Prefill};
use super::state::{NO_PAGE, PAGE};
use super::{Condition, Melody, Text};
use crate::error::Result;
use crate::musicgen::graph::Forward;
use crate::musicgen::prefix;
use crate::musicgen::sites::{At, Site};
use auscult_kernels::DType;
use auscult_runtime::{Contents, Edit, Edits};
use std::sync::Arc;

/// Prompts kept for takes that begin alike, beyond those that play.
const PREFIXES: usize = 4;

/// The positions that a take begins with as they lie in the caches: the columns of a prompt, and what is in front.
pub(super) struct Prefix {
    key: PrefixKey,
    positions: usize,
    /// Pages of each half; the last one is shared only up to `positions`.
    pages: Vec<Vec<u32>>,
    captured: Arc<[Vec<u8>]>,
}

/// What a take begins with: the pages of each half, and of each capture what was there in the columns of the prompt.
pub(super) struct Begun {
    pub pages: Vec<Vec<u32>>,
    pub captured: Arc<[Vec<u8>]>,
}

/// Rows with the same key have the same keys and values.
#[derive(PartialEq)]
struct PrefixKey {
    codes: Vec<u32>,
    text: Option<Arc<Text>>,
    /// With the frames of the take that have slid out of sight, with which it moves on.
    melody: Option<(Arc<Melody>, usize)>,
    records: Vec<Vec<Vec<u32>>>,
}

impl Generator<'_> {
    /// So many free pages for each half, letting go of prompts that nobody plays where there are too few.
    pub(super) fn take_pages(&mut self, each: usize, halves: usize) -> Result<Vec<Vec<u32>>> {
        while self.pages.free() < each * halves && !self.prefixes.is_empty() {
            let prefix = self.prefixes.remove(0);
            prefix.pages.iter().flatten().for_each(|&page| self.pages.release(page));
        }
        let mut take = || {
            self.pages
                .take()
                .expect("there are pages for every slot, and prompts hold none beyond theirs now")
        };
        Ok((0..halves).map(|_| (0..each).map(|_| take()).collect()).collect())
    }

    /// Fills the caches with what is in front of the columns and with those of a prompt, or shares those of a take that began
    /// alike.
    pub(super) fn begin(
        &mut self,
        window: &Window<'_>,
        (prefix, columns): (usize, usize),
        needed: usize,
        records: &[Vec<Vec<u32>>],
    ) -> Result<Begun> {
        let positions = prefix + columns;
        let key = PrefixKey {
            codes: window.codes.to_vec(),
            text: window.take.text.clone(),
            melody: window.take.melody.clone().map(|melody| (melody, window.offset)),
            records: records.to_vec(),
        };
        let alike = |p: &Prefix| p.positions == positions && p.key == key;
        if let Some(at) = self.prefixes.iter().position(alike) {
            let prefix = self.prefixes.remove(at);
            let (kept, captured) = (prefix.pages.clone(), prefix.captured.clone());
            self.prefixes.push(prefix);
            let full = positions / PAGE;
            // held before others are asked for, so that nothing lets go of them
            kept.iter().for_each(|half| half[..full].iter().for_each(|&page| self.pages.hold(page)));
            let partly = self.hold_last(&kept, full, positions);
            let own = self.take_pages(needed - full, kept.len())?;
            let mut pages = Vec::new();
            for (shared, own) in kept.iter().zip(own) {
                if positions > full * PAGE {
                    self.copy_page(shared[full], own[0])?;
                }
                pages.push([&shared[..full], &own].concat());
            }
            partly.into_iter().for_each(|page| self.pages.release(page));
            return Ok(Begun { pages, captured });
        }
        let pages = self.take_pages(needed, self.sizes.halves)?;
        let captured: Arc<[Vec<u8>]> = self.prefill(window, (prefix, columns), &pages, records)?.into();
        let held = positions.div_ceil(PAGE);
        let kept = pages.iter().map(|half| half[..held].to_vec()).collect();
        let prefix = Prefix { key, positions, pages: kept, captured: captured.clone() };
        prefix.pages.iter().flatten().for_each(|&page| self.pages.hold(page));
        self.prefixes.push(prefix);
        if self.prefixes.len() > PREFIXES {
            let oldest = self.prefixes.remove(0);
            oldest.pages.iter().flatten().for_each(|&page| self.pages.release(page));
        }
        Ok(Begun { pages, captured })
    }

    /// Holds the pages that are only partly a prompt's, so that they last until they are copied.
    fn hold_last(&mut self, kept: &[Vec<u32>], full: usize, positions: usize) -> Vec<u32> {
        if positions == full * PAGE {
            return Vec::new();
        }
        let partly: Vec<u32> = kept.iter().map(|half| half[full]).collect();
        partly.iter().for_each(|&page| self.pages.hold(page));
        partly
    }

    /// Copies a page of every layer. By way of other memory: a copy within one buffer is refused by WebGPU.
    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let bytes = self.state.layers[0].keys.desc.bytes() / self.state.layers[0].keys.desc.shape[0];
        let between = self.backend.alloc(Contents::Undefined(bytes))?;
        for cache in &self.state.layers {
            for tensor in [&cache.keys, &cache.values] {
                let at = |page: u32| tensor.span.slice(page as usize * bytes, bytes);
                self.backend.copy(&at(from)?, &between.span())?;
                self.backend.copy(&between.span(), &at(to)?)?;
            }
        }
        Ok(())
    }

    fn prefill(
        &mut self,
        window: &Window<'_>,
        (prefix, columns): (usize, usize),
        pages: &[Vec<u32>],
        records: &[Vec<Vec<u32>>],
    ) -> Result<Vec<Vec<u8>>> {
        self.prefill_of(prefix, columns)?;
        let prefill = self.prefill.as_ref().expect("made above");
        let config = self.decoder.config();
        let (codebooks, frames) = (config.num_codebooks, columns.saturating_sub(1));
        let codes: Vec<u32> = (0..codebooks)
            .flat_map(|q| window.codes[q * window.prompt..][..frames].iter().copied())
            .collect();
        let per_row = self.sizes.pages_per_row(config);
        let mut row_pages = pages.to_vec();
        row_pages.iter_mut().for_each(|row| row.resize(per_row, NO_PAGE));
        let text = window.take.text.as_ref();
        let room = self.sizes.tokens * config.hidden_size;
        let mut values = text.map(|text| text.values().to_vec()).unwrap_or_default();
        values.resize(room, 0.0);
        let (ids, table);
        let begin = Beginning {
            columns: match self.decoder.prefix() {
                None => Columns::Codes(&codes),
                Some(rows) => {
                    let (tokens, seconds) =
                        (text.map_or(0, |text| text.tokens()), self.seconds(window.offset));
                    // the first row is the conditional one
                    let conditions = [window.take.condition(), Condition::default()];
                    let conditions = conditions.into_iter().take(self.sizes.halves);
                    table = rows.table(conditions.map(|condition| rows.rows(condition, tokens, seconds)));
                    ids = prefix::ids(config, &vec![&*codes; self.sizes.halves], prefix, columns);
                    Columns::Behind { ids: &ids, table: &table }
                }
            },
            text: (room > 0).then(|| (&*values, text.map_or(0, |text| text.tokens()))),
            pages: &row_pages,
            records,
        };
        prefill.run(&begin, &*self.backend)?;
        let output = |capture: &Capture| prefill.output(&capture.label, self.sizes.halves);
        self.captures.iter().map(output).collect()
    }

    /// The pass over so many positions and columns, made if it is not the last one.
    pub(super) fn prefill_of(&mut self, prefix: usize, columns: usize) -> Result<&Prefill> {
        let of_shape = |prefill: &Prefill| (prefill.prefix, prefill.columns) == (prefix, columns);
        if !self.prefill.as_ref().is_some_and(of_shape) {
            // each holds the activations of its positions
            self.prefill = None;
            self.prefill = Some(self.make_prefill(prefix, columns)?);
        }
        Ok(self.prefill.as_ref().expect("made above"))
    }

    fn make_prefill(&self, prefix: usize, columns: usize) -> Result<Prefill> {
        let config = self.decoder.config();
        let mut edits = Edits::new();
        for capture in &self.captures {
            let into = capture.label.clone();
            edits.push(capture.site, Edit::Capture { into, dtype: DType::F32 });
        }
        let last = Site::Layer(config.num_hidden_layers - 1, At::SelfAttnOut);
        let sites = self.points.sites().chain(self.captures.iter().map(|capture| capture.site));
        let positions = self.decoder.positions(prefix + columns)?;
        let forward = Forward {
            config,
            weights: self.decoder.weights(),
            positions: &positions,
            batch: self.sizes.halves,
            prefix,
            columns,
            as_given: false,
            tokens: (self.sizes.tokens > 0).then_some(self.sizes.tokens),
            deepest: sites.chain([last]).max().expect("the last layer is one of them"),
            factors: self.decoder.factors(),
            caches: None,
        };
        Prefill::new(forward, &self.state, &self.points, edits, &self.backend)
    }

    /// So many frames, in seconds.
    fn seconds(&self, frames: usize) -> f64 {
        frames as f64 / self.decoder.frames_per_second()
    }
}
