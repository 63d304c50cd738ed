//! Where the rows of a training run come from: a file, a store, or the model at work; over and over, in the same order.

use super::TrainArgs;
use super::live::{Live, Opened};
use super::not_finite;
use super::origin::Origin;
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::capture;
use auscult_analysis::record::{FileRecord, InputRecord, RunRecord};
use auscult_analysis::rows::{Rows, read_rows};
use auscult_analysis::store::{SHA256SUMS, StoreReader};
use auscult_model::musicgen::Site;
use auscult_runtime::Backend;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// Rows of a file that are read at a time.
const BLOCK_ROWS: usize = 4096;

/// A site whose rows are trained on.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its name, where it is known.
    pub hook: Option<String>,
    /// Its layer, where it has one.
    pub layer: Option<usize>,
    /// The model, where it is known.
    pub model: Option<String>,
    /// Length of its rows.
    pub width: usize,
    /// Positions of a clip, where all whole ones have so many.
    pub positions: Option<usize>,
    /// How those positions were computed, where it is known.
    pub posemb: Option<String>,
}

impl Place {
    pub fn new(hook: Option<String>, site: Option<&str>, model: Option<String>, width: usize) -> Self {
        let layer = site.and_then(|site| site.parse::<Site>().ok()).and_then(|site| match site {
            Site::Layer(layer, _) => Some(layer),
            _ => None,
        });
        Self { hook, layer, model, width, positions: None, posemb: None }
    }

    /// Of clips of so many seconds, if they are cut.
    pub fn of_clips(self, seconds: Option<f64>, sample_rate: u32, hop_length: usize) -> Self {
        // the first position is before the first frame
        let frames = |s: f64| ((s * f64::from(sample_rate)).round() as usize).div_ceil(hop_length);
        Self { positions: seconds.map(|s| frames(s) + 1), ..self }
    }

    /// Of a model whose positions are computed so.
    pub fn with_posemb(self, posemb: &str) -> Self {
        Self { posemb: Some(posemb.into()), ..self }
    }
}

/// Rows in parts, in the same order at every pass; of a part the rows of every place.
pub(super) trait Parts {
    /// Rows of every part.
    fn lengths(&self) -> &[usize];

    /// A part: for every place its rows.
    fn read(&mut self, part: usize) -> Result<Vec<Vec<f32>>>;
}

/// Rows of all places, one after another, from the start again behind the last.
pub(super) struct Feed {
    places: Vec<Place>,
    parts: Box<dyn Parts>,
    name: PathBuf,
    origin: Origin,
    /// The part that is read next.
    next: usize,
    /// Rows of every place that were read and not drawn.
    waiting: Vec<Vec<f32>>,
    /// Audio that was left out, or cut short.
    failed: Vec<capture::Failure>,
}

impl Feed {
    /// Opens what the command line names.
    pub fn open(
        context: &Context,
        args: &TrainArgs,
        backend: Arc<dyn Backend>,
        record: &mut RunRecord,
    ) -> Result<Self> {
        if let Some(file) = &args.input {
            let rows = read_rows(file, args.tensor.as_deref())?;
            let input = FileRecord::of(file)?;
            let mut marks = marks("file", &input);
            marks.insert("tensor".into(), args.tensor.clone().into());
            record.inputs.push(InputRecord { file: input, audio: None });
            let site =
                args.hooks.as_deref().map(str::parse::<Site>).transpose()?.map(|site| site.to_string());
            let place = Place::new(args.hooks.clone(), site.as_deref(), None, rows.width);
            return Self::new(vec![place], Box::new(FileRows::new(rows)), file.clone(), marks);
        }
        if let Some(store) = &args.store {
            let reader = StoreReader::open(store)?;
            // its sums hold the hashes of everything else
            let sums = FileRecord::of(store.join(SHA256SUMS))?;
            let marks = marks("store", &sums);
            record.inputs.push(InputRecord { file: sums, audio: None });
            let model = Some(reader.meta().model.clone());
            let hooks = hooks_of(&reader, args.hooks.as_deref())?;
            let mut places = Vec::new();
            for name in &hooks {
                let hook = reader.hook(name)?;
                let meta = reader.meta();
                let place = Place::new(Some(name.clone()), Some(&hook.site), model.clone(), hook.width);
                let place = place.of_clips(meta.windows.window, meta.sample_rate, meta.hop_length);
                places.push(place.with_posemb(&meta.posemb));
            }
            return Self::new(places, Box::new(StoreRows::new(reader, hooks)), store.clone(), marks);
        }
        let (Some(dir), Some(hooks)) = (&args.model, &args.hooks) else {
            unreachable!("clap asks for a source of rows, and for the hooks of a model")
        };
        let Opened { live, places, origin, failed } =
            Live::open(context, args, (dir, hooks), backend, record)?;
        let feed = Self::new(places, Box::new(live), dir.clone(), Map::new())?;
        Ok(Self { origin, failed, ..feed })
    }

    fn new(
        places: Vec<Place>,
        parts: Box<dyn Parts>,
        name: PathBuf,
        marks: Map<String, Value>,
    ) -> Result<Self> {
        if parts.lengths().iter().all(|&rows| rows == 0) {
            return Err(Failure::input(format!("{}: has no rows, expected at least one", name.display())));
        }
        let waiting = vec![Vec::new(); places.len()];
        let origin = Origin { name: name.display().to_string(), marks };
        Ok(Self { places, parts, name, origin, next: 0, waiting, failed: Vec::new() })
    }

    /// The places, in order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What it is called.
    pub fn name(&self) -> String {
        self.name.display().to_string()
    }

    /// What its rows are made of.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Audio that was left out, or cut short.
    pub fn failed(&self) -> &[capture::Failure] {
        &self.failed
    }

    /// Rows of one pass.
    pub fn rows(&self) -> usize {
        self.parts.lengths().iter().sum()
    }

    /// The next rows of every place.
    pub fn draw(&mut self, rows: usize) -> Result<Vec<Vec<f32>>> {
        while self.waiting[0].len() < rows * self.places[0].width {
            self.read()?;
        }
        let taken = self.waiting.iter_mut().zip(&self.places).map(|(waiting, place)| {
            let rest = waiting.split_off(rows * place.width);
            std::mem::replace(waiting, rest)
        });
        Ok(taken.collect())
    }

    fn read(&mut self) -> Result<()> {
        let part = self.parts.read(self.next)?;
        let before: usize = self.parts.lengths()[..self.next].iter().sum();
        for ((waiting, rows), place) in self.waiting.iter_mut().zip(part).zip(&self.places) {
            if let Some(at) = rows.iter().position(|v| !v.is_finite()) {
                return Err(not_finite(&self.name, rows[at], before + at / place.width, at % place.width));
            }
            waiting.extend(rows);
        }
        self.next = (self.next + 1) % self.parts.lengths().len();
        Ok(())
    }

    /// Goes to where so many rows have been drawn.
    pub fn seek(&mut self, drawn: u64) -> Result<()> {
        let mut left = usize::try_from(drawn % self.rows() as u64).expect("below a usize");
        self.waiting.iter_mut().for_each(Vec::clear);
        self.next = 0;
        let lengths = self.parts.lengths();
        while left >= lengths[self.next] {
            left -= lengths[self.next];
            self.next += 1;
        }
        if left > 0 {
            self.read()?;
            for (waiting, place) in self.waiting.iter_mut().zip(&self.places) {
                waiting.drain(..left * place.width);
            }
        }
        Ok(())
    }
}

/// What tells a source of one kind from others: the file that holds it.
fn marks(kind: &str, file: &FileRecord) -> Map<String, Value> {
    Map::from_iter([
        ("kind".to_string(), kind.into()),
        ("bytes".to_string(), file.bytes.into()),
        ("sha256".to_string(), file.sha256.clone().into()),
    ])
}

/// A file's rows, in memory.
struct FileRows {
    rows: Rows,
    lengths: Vec<usize>,
}

impl FileRows {
    fn new(rows: Rows) -> Self {
        let blocks = rows.values.chunks(BLOCK_ROWS * rows.width);
        let lengths = blocks.map(|block| block.len() / rows.width).collect();
        Self { rows, lengths }
    }
}

impl Parts for FileRows {
    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn read(&mut self, part: usize) -> Result<Vec<Vec<f32>>> {
        let Rows { width, values } = &self.rows;
        let start = part * BLOCK_ROWS * width;
        Ok(vec![values[start..][..self.lengths[part] * width].to_vec()])
    }
}

/// The clips of a store.
struct StoreRows {
    reader: StoreReader,
    hooks: Vec<String>,
    lengths: Vec<usize>,
}

impl StoreRows {
    fn new(reader: StoreReader, hooks: Vec<String>) -> Self {
        let lengths = reader.clips().iter().map(|clip| clip.positions).collect();
        Self { reader, hooks, lengths }
    }
}

impl Parts for StoreRows {
    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn read(&mut self, part: usize) -> Result<Vec<Vec<f32>>> {
        let clip = &self.reader.clips()[part].clip_id;
        self.hooks.iter().map(|hook| Ok(self.reader.rows(hook, clip)?)).collect()
    }
}

/// The store's hooks that are meant: those of a list such as `hook_layers.{1,5}`, or the only one.
fn hooks_of(reader: &StoreReader, named: Option<&str>) -> Result<Vec<String>> {
    let all = &reader.meta().sites;
    let Some(list) = named else {
        return match all.as_slice() {
            [only] => Ok(vec![only.hook.clone()]),
            _ => {
                let there: Vec<&str> = all.iter().map(|hook| hook.hook.as_str()).collect();
                Err(Failure::usage(format!("--hooks is not given, expected some of {}", there.join(", "))))
            }
        };
    };
    let names = auscult_model::musicgen::parse_sites(list, usize::MAX)?;
    names.into_iter().map(|named| Ok(reader.hook(&named.label)?.hook.clone())).collect()
}
