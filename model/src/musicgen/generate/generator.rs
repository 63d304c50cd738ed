//! The slots that takes play in: what is uploaded when one begins, and what a replay advances.

use super::begin::{Begun, Prefix};
use super::interventions::{Halves, Points};
use super::pages::Pages;
use super::play::Take;
use super::prefill::Prefill;
use super::sampling::Sampling;
use super::state::{LIMITS, NO_PAGE, PAGE, Sizes, State, put_row};
use super::step::StepGraph;
use super::{Condition, Text};
use crate::error::{ModelError, Result};
use crate::musicgen::decoder::Decoder;
use crate::musicgen::sites::Site;
use auscult_kernels::TensorDesc;
use auscult_kernels::ops::cache_write::CacheWrite;
use auscult_kernels::ops::capture_step::CaptureStep;
use auscult_kernels::ops::linear::Activation;
use auscult_kernels::ops::linear_rows::LinearRows;
use auscult_kernels::ops::sample::Guidance;
use auscult_runtime::{
    Backend, Contents, Edits, Graph, GraphBuilder, Insert, Operand, Place, Program, Tensor,
};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Columns whose captured rows the device keeps until they are fetched.
const RING: usize = 64;

/// A site whose rows are kept while takes play.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// Name of the result.
    pub label: String,
    /// Where.
    pub site: Site,
}

/// How a generator is made.
#[derive(Clone, Debug, Default)]
pub struct GeneratorOptions {
    /// Takes that play side by side at most; 0 for as many as there are.
    pub slots: usize,
    /// Frames of a window at most; `None` for what the model was trained on.
    pub window: Option<usize>,
    /// Sites to keep.
    pub captures: Vec<Capture>,
}

/// A decoder with the memory to play takes.
pub struct Generator<'d> {
    pub(super) decoder: &'d Decoder,
    pub(super) backend: Arc<dyn Backend>,
    pub(crate) sizes: Sizes,
    pub(super) points: Points,
    pub(crate) captures: Vec<Capture>,
    pub(super) state: State,
    records: Vec<Tensor>,
    /// `[rows, RING, width]` for each capture.
    history: Vec<Tensor>,
    step: Program,
    text_program: Option<Program>,
    /// The pass that was run last.
    pub(super) prefill: Option<Prefill>,
    pub(super) pages: Pages,
    pub(super) prefixes: Vec<Prefix>,
    slots: Vec<Option<Slot>>,
    /// The text whose keys and values lie in each slot's page.
    texts: Vec<Option<Arc<Text>>>,
}

/// What a slot holds while a window plays in it.
struct Slot {
    /// Positions in front of its columns.
    prefix: usize,
    /// Pages of each half.
    pages: Vec<Vec<u32>>,
    /// Next column to be fed.
    column: usize,
    /// First column that is not needed any more.
    end: usize,
}

/// What the device held of all slots behind a block of columns.
pub(crate) struct Fetched {
    /// `[slots, codebooks, positions]`.
    codes: Vec<u32>,
    /// `[rows, RING, width]` for each capture.
    rings: Vec<Vec<u8>>,
}

/// A stretch of a take that is played in one go.
pub(crate) struct Window<'a> {
    pub take: &'a Take,
    /// Codes that it begins with, `[codebooks, prompt]`.
    pub codes: &'a [u32],
    pub prompt: usize,
    /// Frames, the prompt's included.
    pub frames: usize,
    /// Frames of the take that have slid out of sight.
    pub offset: usize,
}

impl<'d> Generator<'d> {
    /// Makes a generator that has room for these takes, and for what is done to them.
    ///
    /// # Errors
    /// A take that cannot be played, an intervention or a capture at a site that there is not, memory.
    pub fn new(decoder: &'d Decoder, takes: &[Take], options: &GeneratorOptions) -> Result<Self> {
        let config = decoder.config();
        let backend = decoder.backend().clone();
        let window = options.window.unwrap_or(decoder.trained_frames());
        for take in takes {
            take.check(decoder, window)?;
        }
        for edit in takes.iter().flat_map(|take| &take.edits) {
            decoder.site(edit.site)?;
            if edit.site == Site::Logits {
                let expected = "a site of the residual stream's width".into();
                return Err(ModelError::Argument { argument: "site", found: "logits".into(), expected });
            }
        }
        for capture in &options.captures {
            decoder.site(capture.site)?;
        }
        let sizes = Sizes::of(decoder, takes, options);
        let guided = sizes.halves == 2;
        let points = Points::of(takes.iter().map(|take| &*take.edits), config.hidden_size, &*backend)?;
        let state = State::new(config, &sizes, &*backend)?;
        let records = points.records(sizes.rows(), &*backend)?;
        let history = options
            .captures
            .iter()
            .map(|capture| {
                let desc = TensorDesc::f32([sizes.rows(), RING, capture.site.width(config)]);
                Ok(Tensor { span: backend.alloc(Contents::Undefined(desc.bytes()))?.span(), desc })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut edits = Edits::new();
        for (capture, history) in options.captures.iter().zip(&history) {
            let keep = Insert {
                op: Arc::new(CaptureStep),
                inputs: vec![
                    Operand::Site,
                    Operand::Tensor(state.positions.clone()),
                    Operand::Tensor(history.clone()),
                ],
                place: Place::Beside,
            };
            edits.insert(capture.site, vec![keep]);
        }
        for (site, inserts) in points.inserts(&records, &state.positions) {
            edits.insert(site, inserts);
        }
        let positions = decoder.positions(sizes.positions(config))?;
        let step = StepGraph {
            config,
            weights: decoder.weights(),
            positions: &positions,
            state: &state,
            guidance: if guided { Guidance::Pairs } else { Guidance::None },
        };
        let step = Program::new(backend.clone(), step.build(edits)?)?;
        let pages = Pages::new(sizes.pages(config));
        Ok(Self {
            decoder,
            backend,
            points,
            captures: options.captures.clone(),
            records,
            history,
            step,
            text_program: None,
            prefill: None,
            pages,
            prefixes: Vec::new(),
            slots: (0..sizes.slots).map(|_| None).collect(),
            texts: vec![None; sizes.slots],
            sizes,
            state,
        })
    }

    /// Bytes of device memory that the caches of a generator for these takes would hold, without making it.
    pub fn cache_bytes(decoder: &Decoder, takes: &[Take], options: &GeneratorOptions) -> usize {
        Sizes::of(decoder, takes, options).cache_bytes(decoder.config())
    }

    /// The launches of one column, for printing.
    pub fn graph(&self) -> &Graph {
        self.step.graph()
    }

    /// Which kernels play a take, and how they are launched, behind a line for each graph: what its text becomes for the
    /// layers, what stands in front of its columns and the columns of its prompt, each where there is any; and a column of
    /// all takes that play side by side, which is replayed.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn explain(&mut self, take: &Take) -> Result<String> {
        let info = self.backend.info().clone();
        let mut told = String::new();
        if self.state.text.is_some() && take.text.is_some() {
            let launches = auscult_runtime::explain(&self.text_graph()?, &info);
            told += &format!("keys and values of a text of {} tokens:\n{launches}", self.sizes.tokens);
        }
        let prefix = take.prefix(self.decoder);
        let columns = columns_at_once(prefix, take.prompt.as_ref().map_or(0, |prompt| prompt.frames()));
        if prefix + columns > 0 {
            let launches = auscult_runtime::explain(self.prefill_of(prefix, columns)?.graph(), &info);
            let rows = self.sizes.halves;
            told += &format!(
                "the beginning of a take, {rows} rows of {prefix} positions and {columns} columns:\n{launches}"
            );
        }
        let (slots, rows) = (self.sizes.slots, self.sizes.rows());
        let launches = auscult_runtime::explain(self.graph(), &info);
        told += &format!("a column of {slots} takes, {rows} rows:\n{launches}");
        Ok(told)
    }

    /// Types that a column reads the layers' linear weights in: that of the precision, or of two bytes a value where no value
    /// changes by it.
    ///
    /// # Errors
    /// None in practice: the weights are on the device.
    pub fn weight_types(&self) -> Result<BTreeSet<String>> {
        self.decoder.weights().lean_types()
    }

    /// Bytes of device memory held beside the weights: caches, and the activations of a step.
    pub fn memory_bytes(&self) -> usize {
        self.sizes.cache_bytes(self.decoder.config()) + self.step.arena_bytes()
    }

    /// Codebooks of the decoder.
    pub(crate) fn codebooks(&self) -> usize {
        self.decoder.config().num_codebooks
    }

    /// Columns by which the last codebook lags.
    pub(crate) fn lag(&self) -> usize {
        self.decoder.config().delays().into_iter().max().unwrap_or(0)
    }

    /// Bytes of a row of a capture.
    pub(crate) fn row_bytes(&self, capture: usize) -> usize {
        let desc = &self.history[capture].desc;
        desc.shape[2] * desc.dtype.size()
    }

    /// Rows of a slot: the one that sees the text first.
    fn rows(&self, slot: usize) -> impl Iterator<Item = usize> + use<> {
        let slots = self.sizes.slots;
        (0..self.sizes.halves).map(move |half| half * slots + slot)
    }

    /// Begins a window in a free slot. Returns what was captured of the prompt's columns: `[halves, columns, width]` for
    /// each capture, and how many columns.
    pub(crate) fn start(&mut self, slot: usize, window: &Window<'_>) -> Result<(usize, Arc<[Vec<u8>]>)> {
        let config = self.decoder.config();
        let codebooks = config.num_codebooks;
        self.put_text(slot, window.take.text.as_ref())?;
        let prefix = window.take.prefix(self.decoder);
        // from positions to columns of the take
        let offset = count(window.offset).wrapping_sub(count(prefix));
        let records: Vec<_> = (0..self.sizes.halves)
            .map(|half| {
                let half = if half == 0 { Halves::Conditional } else { Halves::Unconditional };
                self.points.row(&window.take.edits, half, offset)
            })
            .collect();
        let columns = columns_at_once(prefix, window.prompt);
        // every frame has a position behind its column, which only captures ask for where nothing lags
        let end = window.frames + self.lag().max(usize::from(!self.captures.is_empty()));
        let needed = (prefix + end + 1).div_ceil(PAGE);
        let Begun { pages, captured } = match prefix + columns {
            0 => Begun { pages: self.take_pages(needed, self.sizes.halves)?, captured: Arc::new([]) },
            _ => self.begin(window, (prefix, columns), needed, &records)?,
        };
        let per_row = self.sizes.pages_per_row(config);
        let backend = &*self.backend;
        let special = u32::try_from(config.special_token()).expect("validate() bounds the vocabulary");
        let first_column: Vec<u32> = (0..codebooks)
            .map(|q| match columns.checked_sub(1 + config.delays()[q]) {
                Some(t) => window.codes[q * window.prompt + t],
                None => special,
            })
            .collect();
        for (half, row) in self.rows(slot).enumerate() {
            let mut row_pages = pages[half].clone();
            row_pages.resize(per_row, NO_PAGE);
            put_row(backend, &self.state.pages, row, &row_pages)?;
            put_row(backend, &self.state.positions, row, &[count(prefix + columns)])?;
            put_row(backend, &self.state.ids, row, &first_column)?;
            for (table, words) in self.records.iter().zip(&records[half]) {
                put_row(backend, table, row, words)?;
            }
        }
        let sampling = &window.take.sampling;
        let words = sampling.words(window.take.seed, window.take.row, offset);
        put_row(backend, &self.state.settings, slot, &words)?;
        let mut limits = [0; LIMITS];
        limits[..2].copy_from_slice(&[count(prefix + window.prompt), count(prefix + window.frames)]);
        put_row(backend, &self.state.limits, slot, &limits)?;
        let room = self.sizes.prefix + self.sizes.frames;
        let mut codes = vec![0; codebooks * room];
        for (q, codes) in codes.chunks_mut(room).enumerate() {
            // the frames that a column before the first asks for
            codes[..prefix].fill(special);
            let prompt = &window.codes[q * window.prompt..][..window.prompt];
            codes[prefix..][..window.prompt].copy_from_slice(prompt);
        }
        put_row(backend, &self.state.codes, slot, &codes)?;
        self.slots[slot] = Some(Slot { prefix, pages, column: columns, end });
        Ok((columns, captured))
    }

    /// Frees a slot.
    pub(crate) fn stop(&mut self, slot: usize) -> Result<()> {
        if let Some(old) = self.slots[slot].take() {
            old.pages.iter().flatten().for_each(|&page| self.pages.release(page));
            for row in self.rows(slot) {
                let none = vec![NO_PAGE; self.state.pages.desc.shape[1]];
                put_row(&*self.backend, &self.state.pages, row, &none)?;
            }
        }
        Ok(())
    }

    /// A slot in which nothing plays.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_none)
    }

    /// Columns until the first of the windows is done, or the captured rows must be fetched; `None` if nothing plays.
    pub(crate) fn columns_ahead(&self) -> Option<usize> {
        let ahead = self.slots.iter().flatten().map(|slot| slot.end - slot.column).min()?;
        Some(if self.captures.is_empty() { ahead } else { ahead.min(RING) })
    }

    /// The column that a slot feeds next, and whether its window is done.
    pub(crate) fn progress(&self, slot: usize) -> Option<(usize, bool)> {
        self.slots[slot].as_ref().map(|slot| (slot.column, slot.column >= slot.end))
    }

    /// Plays so many columns in every slot. Returns when they are queued.
    pub(crate) fn advance(&mut self, columns: usize) -> Result<()> {
        for _ in 0..columns {
            self.step.replay()?;
        }
        for slot in self.slots.iter_mut().flatten() {
            slot.column += columns;
        }
        Ok(())
    }

    /// What lies on the device of all slots, in a download for each tensor; all of them are asked for before one is waited for.
    pub(crate) fn fetch(&self) -> Result<Fetched> {
        let codes = self.backend.start_download(&self.state.codes.span)?;
        let rings = self.history.iter().map(|tensor| self.backend.start_download(&tensor.span));
        let rings: Vec<_> = rings.collect::<std::result::Result<_, _>>()?;
        let codes = bytemuck::pod_collect_to_vec(&codes.finish()?);
        let rings = rings.into_iter().map(|ring| Ok(ring.finish()?));
        Ok(Fetched { codes, rings: rings.collect::<Result<_>>()? })
    }

    /// The codes of a slot so far, `[codebooks, frames of the generator]`.
    pub(crate) fn codes(&self, fetched: &Fetched, slot: usize) -> Vec<u32> {
        let room = self.sizes.prefix + self.sizes.frames;
        let row = self.decoder.config().num_codebooks * room;
        let prefix = self.prefix(slot);
        let codes = fetched.codes[slot * row..][..row].chunks(room);
        codes.flat_map(|codes| &codes[prefix..][..self.sizes.frames]).copied().collect()
    }

    /// Positions in front of the columns of what plays in a slot.
    fn prefix(&self, slot: usize) -> usize {
        self.slots[slot].as_ref().map_or(0, |slot| slot.prefix)
    }

    /// The rows of one capture that a slot's half left at `columns`, at most [`RING`] of the last ones.
    pub(crate) fn captured<'f>(
        &self,
        fetched: &'f Fetched,
        capture: usize,
        (slot, half): (usize, usize),
        columns: Range<usize>,
    ) -> impl Iterator<Item = &'f [u8]> {
        let width = self.row_bytes(capture);
        let row = half * self.sizes.slots + slot;
        let ring = &fetched.rings[capture][row * RING * width..][..RING * width];
        let prefix = self.prefix(slot);
        columns.map(move |column| &ring[(prefix + column) % RING * width..][..width])
    }

    /// Keys and values of a text for the layers of a slot, unless they lie there already.
    fn put_text(&mut self, slot: usize, text: Option<&Arc<Text>>) -> Result<()> {
        let Some(state) = &self.state.text else { return Ok(()) };
        let backend = &*self.backend;
        let row = slot; // the conditional one
        let Some(text) = text else {
            put_row(backend, &state.lengths, row, &[0_u32])?;
            return put_row(backend, &state.pages, row, &[NO_PAGE]);
        };
        let page = [count(slot)];
        put_row(backend, &state.lengths, row, &[count(text.tokens())])?;
        put_row(backend, &state.pages, row, &page)?;
        if self.texts[slot].as_ref().is_some_and(|there| Arc::ptr_eq(there, text)) {
            return Ok(());
        }
        let (d, tokens) = (self.decoder.config().hidden_size, self.sizes.tokens);
        if self.text_program.is_none() {
            let graph = self.text_graph()?;
            self.text_program = Some(Program::new(self.backend.clone(), graph)?);
        }
        let program = self.text_program.as_ref().expect("made above");
        let mut values = text.values().to_vec();
        values.resize(tokens * d, 0.0);
        program.run(&[
            (TEXT_STATES, bytemuck::cast_slice(&values)),
            (TEXT_PAGE, bytemuck::cast_slice(&page)),
            (TEXT_FIRST, bytemuck::cast_slice(&[0_u32])),
        ])?;
        self.texts[slot] = Some(text.clone());
        Ok(())
    }

    /// The keys and values of one text, for every layer.
    fn text_graph(&self) -> Result<Graph> {
        let state = self.state.text.as_ref().expect("asked for only where there is text");
        let (d, tokens) = (self.decoder.config().hidden_size, self.sizes.tokens);
        let mut g = GraphBuilder::new(Edits::new());
        let x = g.input(TEXT_STATES, TensorDesc::f32([tokens, d]))?;
        let page = g.input(TEXT_PAGE, TensorDesc::u32([1, 1]))?;
        let first = g.input(TEXT_FIRST, TensorDesc::u32([1]))?;
        for (l, cache) in state.layers.iter().enumerate() {
            let w = self.decoder.weights().lean_cross(l)?;
            let [key, value, keys, values] =
                [&w.attn.key, &w.attn.value, &cache.keys, &cache.values].map(|t| g.constant(t));
            let product = LinearRows { activation: Activation::None };
            let kv = g.op(&product, &[Some(x), Some(key), Some(value), None, None, None])?;
            let write = CacheWrite { steps: tokens, k_first: 0, v_first: d };
            g.op(&write, &[kv, kv, first, page, keys, values].map(Some))?;
        }
        Ok(g.finish()?)
    }
}

impl Sizes {
    fn of(decoder: &Decoder, takes: &[Take], options: &GeneratorOptions) -> Self {
        let window = options.window.unwrap_or(decoder.trained_frames());
        let conditioned = |take: &Take| take.text.is_some() || take.melody.is_some();
        let guided = takes.iter().any(|take| conditioned(take) && take.sampling.guidance != 1.0);
        let most = takes.len().max(1);
        let tokens = takes.iter().filter_map(|take| Some(take.text.as_ref()?.tokens())).max().unwrap_or(0);
        Self {
            slots: if options.slots == 0 { most } else { options.slots.min(most) },
            halves: if guided { 2 } else { 1 },
            frames: takes.iter().map(|take| take.frames.min(window)).max().unwrap_or(1),
            prefix: takes.iter().map(|take| take.prefix(decoder)).max().unwrap_or(0),
            tokens: if decoder.takes_melody() { 0 } else { tokens },
            cache: decoder.factors(),
        }
    }
}

/// Names of the inputs of the pass over a text.
const TEXT_STATES: &str = "states";
const TEXT_PAGE: &str = "page";
const TEXT_FIRST: &str = "first";

/// Columns of a prompt that are fed at once: a single one is as well fed like any other.
fn columns_at_once(prefix: usize, prompt: usize) -> usize {
    if prompt >= 2 || prefix > 0 { prompt } else { 0 }
}

/// A count as the device reads it: bounded by what was allocated.
fn count(value: usize) -> u32 {
    u32::try_from(value).expect("bounded by the positions of a take")
}

impl Take {
    /// What it is conditioned by.
    pub(super) fn condition(&self) -> Condition<'_> {
        Condition { text: self.text.as_deref(), melody: self.melody.as_deref() }
    }

    /// Positions in front of its columns.
    fn prefix(&self, decoder: &Decoder) -> usize {
        decoder.prefix_positions(self.text.as_ref().map_or(0, |text| text.tokens()))
    }

    /// Refuses takes that no generator of this decoder plays.
    fn check(&self, decoder: &Decoder, window: usize) -> Result<()> {
        let bad = |argument, found: String, expected: String| {
            Err(ModelError::Argument { argument, found, expected })
        };
        Sampling::check(&self.sampling)?;
        if self.frames == 0 {
            return bad("frames", "0".into(), "at least one frame".into());
        }
        decoder.check(self.condition())?;
        let Some(prompt) = &self.prompt else { return Ok(()) };
        let config = decoder.config();
        prompt.check(config.num_codebooks, config.vocab_size)?;
        if prompt.frames() == 0 {
            return bad("prompt", "0 frames".into(), "at least one frame, or no prompt".into());
        }
        if prompt.frames() >= self.frames {
            let expected = format!("less than {}, the frames asked for", self.frames);
            return bad("prompt", format!("{} frames", prompt.frames()), expected);
        }
        if prompt.frames() >= window {
            let expected = format!("less than {window} frames, which are in sight at a time");
            return bad("prompt", format!("{} frames", prompt.frames()), expected);
        }
        Ok(())
    }
}
