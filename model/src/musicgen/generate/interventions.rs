//! What is done to the residual stream of a take while it plays, and the tables that tell the device.
//!
//! A generator is built for points: sites at which something may be done to some row. Which row, what and when lie in
//! buffers, so a take with an intervention and one without run the same launches side by side.

use crate::error::{ModelError, Result};
use crate::musicgen::sites::Site;
use crate::sae::Sae;
use auscult_kernels::TensorDesc;
use auscult_kernels::ops::edit_rows::EditRows;
use auscult_kernels::ops::linear::Activation;
use auscult_kernels::ops::linear_rows::LinearRows;
use auscult_runtime::{Backend, Contents, Insert, Operand, Place, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Which of a take's two rows are touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Halves {
    /// Both.
    #[default]
    Both,
    /// The one that sees the text.
    Conditional,
    /// The one that does not.
    Unconditional,
}

/// What is done to a row `x` of the stream. `f` is the activation of the feature, `d` the direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// `x - f d`.
    Ablate,
    /// `x + (factor - 1) f d`.
    Scale(f32),
    /// `x + (value - f) d`.
    Set(f32),
    /// `x + amount d`; no feature is looked at.
    Steer(f32),
    /// `x = 0`.
    Zero,
    /// `x = d`, such as the mean of a population.
    Replace,
    /// `x = d[column]`, the rows of another run; columns behind the last of them are left alone.
    Patch,
}

/// One intervention on one take.
#[derive(Clone, Debug)]
pub struct Intervention {
    /// Where.
    pub site: Site,
    /// What.
    pub action: Action,
    /// The feature whose activation [`Action::Ablate`], [`Action::Scale`] and [`Action::Set`] look at.
    pub feature: Option<(Arc<Sae>, usize)>,
    /// The direction, `[width]`; rows `[columns, width]` for [`Action::Patch`]; empty for [`Action::Zero`].
    pub direction: Arc<[f32]>,
    /// Columns of the take it is done in: column 0 holds only special tokens, column `s` belongs to frame `s - 1`.
    pub columns: Range<usize>,
    /// Rows it is done to.
    pub halves: Halves,
}

impl Intervention {
    /// An intervention on a feature of an autoencoder, along the feature's own direction, at every column.
    pub fn on_feature(site: Site, sae: &Arc<Sae>, feature: usize, action: Action) -> Result<Self> {
        let direction = sae.direction(feature)?.into();
        let feature = Some((sae.clone(), feature));
        Ok(Self { site, action, feature, direction, columns: 0..usize::MAX, halves: Halves::Both })
    }

    /// An intervention along a direction, at every column.
    pub fn along(site: Site, direction: Arc<[f32]>, action: Action) -> Self {
        Self { site, action, feature: None, direction, columns: 0..usize::MAX, halves: Halves::Both }
    }

    fn check(&self, width: usize) -> Result<()> {
        let bad = |argument, found: String, expected: String| {
            Err(ModelError::Argument { argument, found, expected })
        };
        let needs_feature = matches!(self.action, Action::Ablate | Action::Scale(_) | Action::Set(_));
        if needs_feature && self.feature.is_none() {
            return bad("feature", "none".into(), format!("one, for {:?}", self.action));
        }
        if let Some((sae, feature)) = &self.feature {
            sae.check_width(self.site, width)?;
            sae.check_form()?;
            if *feature >= sae.features() {
                return bad("feature", feature.to_string(), format!("less than {}", sae.features()));
            }
        }
        let fits = match self.action {
            Action::Zero => true,
            Action::Patch => !self.direction.is_empty() && self.direction.len().is_multiple_of(width),
            _ => self.direction.len() == width,
        };
        if !fits {
            let expected = format!("{width} values, the width at {}", self.site);
            return bad("direction", format!("{} values", self.direction.len()), expected);
        }
        if let Some(at) = self.direction.iter().position(|v| !v.is_finite()) {
            return bad("direction", format!("{} at {at}", self.direction[at]), "finite values".into());
        }
        match self.action {
            Action::Scale(v) | Action::Set(v) | Action::Steer(v) if !v.is_finite() => {
                bad("amount", v.to_string(), "a finite number".into())
            }
            _ => Ok(()),
        }
    }
}

/// Words of a record, as `edit_rows_f32` reads them.
const RECORD: usize = 8;

/// The bytes of one row's records that do nothing.
fn nothing(slots: usize) -> Vec<u32> {
    vec![0; slots * RECORD]
}

/// A site, and an autoencoder where features are looked at there.
struct Point {
    site: Site,
    sae: Option<Arc<Sae>>,
    /// Features that are active at most, 0 for all above their thresholds.
    k: usize,
    /// What a feature is above to be active; 0 for all without.
    thresholds: Option<Vec<f32>>,
    /// Records a row.
    slots: usize,
    directions: Vec<Arc<[f32]>>,
    on_device: OnDevice,
}

/// What takes want of a point.
struct Wanted {
    site: Site,
    sae: Option<Arc<Sae>>,
    slots: usize,
    directions: Vec<Arc<[f32]>>,
}

struct OnDevice {
    /// f32 `[rows of all directions, width]`.
    directions: Tensor,
    /// Weight f32 `[features, width]` and bias f32 `[features]` of the autoencoder's encoder.
    encoder: Option<(Tensor, Tensor)>,
}

/// Everything that may be done by a generator.
pub(crate) struct Points {
    points: Vec<Point>,
    width: usize,
}

impl Points {
    /// The points that these takes need, with their directions on the device.
    ///
    /// # Errors
    /// An intervention that does not fit the stream; memory.
    pub fn of<'a>(
        takes: impl Iterator<Item = &'a [Intervention]>,
        width: usize,
        backend: &dyn Backend,
    ) -> Result<Self> {
        let mut found: Vec<Wanted> = Vec::new();
        for take in takes {
            let mut used: Vec<usize> = vec![0; found.len()];
            for edit in take {
                edit.check(width)?;
                let sae = edit.feature.as_ref().map(|(sae, _)| sae);
                let is_there = |w: &Wanted| w.site == edit.site && same(w.sae.as_ref(), sae);
                let at = found.iter().position(is_there).unwrap_or_else(|| {
                    found.push(Wanted {
                        site: edit.site,
                        sae: sae.cloned(),
                        slots: 0,
                        directions: Vec::new(),
                    });
                    used.push(0);
                    found.len() - 1
                });
                used[at] += 1;
                let Wanted { slots, directions, .. } = &mut found[at];
                *slots = (*slots).max(used[at]);
                if !edit.direction.is_empty() && !directions.iter().any(|d| Arc::ptr_eq(d, &edit.direction)) {
                    directions.push(edit.direction.clone());
                }
            }
        }
        // the order of the stream: what is done at one site is seen at the next
        found.sort_by_key(|wanted| wanted.site);
        let mut points = Vec::with_capacity(found.len());
        for Wanted { site, sae, slots, directions } in found {
            let mut values: Vec<f32> = directions.iter().flat_map(|d| d.iter().copied()).collect();
            // a point that only zeroes has none, and a launch wants one
            values.resize(values.len().max(width), 0.0);
            let directions_there = upload(backend, TensorDesc::f32([values.len() / width, width]), &values)?;
            let (encoder, thresholds) = match &sae {
                Some(sae) => {
                    let form = sae.form()?;
                    (Some((form.weight.upload(backend)?, form.bias().upload(backend)?)), form.threshold)
                }
                None => (None, None),
            };
            let on_device = OnDevice { directions: directions_there, encoder };
            let k = sae.as_ref().and_then(|sae| sae.k()).unwrap_or(0);
            points.push(Point { site, sae, k, thresholds, slots, directions, on_device });
        }
        Ok(Self { points, width })
    }

    /// The sites, in order; one may be there twice.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.points.iter().map(|point| point.site)
    }

    /// Memory for the records of `rows` rows, of nothing done.
    pub fn records(&self, rows: usize, backend: &dyn Backend) -> Result<Vec<Tensor>> {
        let table = |point: &Point| {
            let words = nothing(point.slots).repeat(rows);
            upload(backend, TensorDesc::u32([rows, point.slots, RECORD]), &words)
        };
        self.points.iter().map(table).collect()
    }

    /// The words of one row at every point. Directions are numbered as they lie on the device. `offset` is what is added to a
    /// position, in 32 bits, to give the column of the take.
    pub fn row(&self, edits: &[Intervention], half: Halves, offset: u32) -> Vec<Vec<u32>> {
        self.points
            .iter()
            .map(|point| {
                let mut words = Vec::new();
                for edit in edits.iter().filter(|edit| point.is_of(edit) && edit.touches(half)) {
                    words.extend(point.record(edit, self.width, offset));
                }
                words.resize(point.slots * RECORD, 0);
                words
            })
            .collect()
    }

    /// The ops at each point, over the records in `records` and the rows' columns in `positions`.
    pub fn inserts(&self, records: &[Tensor], positions: &Tensor) -> Vec<(Site, Vec<Insert>)> {
        let insert = |(point, records): (&Point, &Tensor)| {
            let mut inserts = Vec::new();
            let pre = point.on_device.encoder.as_ref().map(|(weight, bias)| {
                inserts.push(Insert {
                    op: Arc::new(LinearRows { activation: Activation::None }),
                    inputs: vec![
                        Operand::Site,
                        Operand::Tensor(weight.clone()),
                        Operand::Absent,
                        Operand::Absent,
                        Operand::Tensor(bias.clone()),
                        Operand::Absent,
                    ],
                    place: Place::Beside,
                });
                Operand::Beside(1)
            });
            inserts.push(Insert {
                op: Arc::new(EditRows { k: point.k }),
                inputs: vec![
                    Operand::Site,
                    Operand::Tensor(records.clone()),
                    Operand::Tensor(point.on_device.directions.clone()),
                    Operand::Tensor(positions.clone()),
                    pre.unwrap_or(Operand::Absent),
                ],
                place: Place::Within,
            });
            (point.site, inserts)
        };
        self.points.iter().zip(records).map(insert).collect()
    }
}

impl Point {
    fn is_of(&self, edit: &Intervention) -> bool {
        self.site == edit.site && same(self.sae.as_ref(), edit.feature.as_ref().map(|(sae, _)| sae))
    }

    fn record(&self, edit: &Intervention, width: usize, offset: u32) -> [u32; RECORD] {
        let (kind, amount) = match edit.action {
            Action::Ablate => (1, 0.0),
            Action::Scale(factor) => (2, factor),
            Action::Set(value) => (3, value),
            Action::Steer(amount) => (4, amount),
            Action::Zero => (5, 0.0),
            Action::Replace => (6, 0.0),
            Action::Patch => (7, 0.0),
        };
        let rows = |d: &Arc<[f32]>| d.len() / width;
        let before = self.directions.iter().take_while(|d| !Arc::ptr_eq(d, &edit.direction));
        let direction: usize = if edit.direction.is_empty() { 0 } else { before.map(rows).sum() };
        [
            kind,
            word(edit.feature.as_ref().map_or(0, |(_, feature)| *feature)),
            word(direction),
            amount.to_bits(),
            word(edit.columns.start),
            word(edit.columns.end),
            offset,
            match (edit.action, &edit.feature) {
                (Action::Ablate | Action::Scale(_) | Action::Set(_), Some((_, feature))) => {
                    self.thresholds.as_ref().map_or(0, |thresholds| thresholds[*feature].to_bits())
                }
                _ => word(rows(&edit.direction)),
            },
        ]
    }
}

impl Intervention {
    fn touches(&self, half: Halves) -> bool {
        self.halves == Halves::Both || self.halves == half
    }
}

/// A count as the device reads it; what lies beyond 32 bits lies beyond every column.
fn word(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn same(a: Option<&Arc<Sae>>, b: Option<&Arc<Sae>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Memory of its own on the device, which launches may write, holding `values`.
pub(crate) fn upload<T: bytemuck::Pod>(
    backend: &dyn Backend,
    desc: TensorDesc,
    values: &[T],
) -> Result<Tensor> {
    let buffer = backend.alloc(Contents::Undefined(desc.bytes()))?;
    let span = buffer.span();
    backend.upload(&span, bytemuck::cast_slice(values))?;
    Ok(Tensor { desc, span })
}
