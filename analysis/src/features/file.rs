//! Files of statistics: JSON, CSV or safetensors; and the maxima in them, by which edits are measured.

use std::io::Write;
use std::path::Path;

use auscult_kernels::DType;
use auscult_runtime::files::{FileError, atomic_write, atomic_write_bytes};
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use auscult_runtime::weights::Weights;
use serde::{Deserialize, Serialize};

use super::{ClassCount, Codes, Labels, Stats, StatsOptions};
use crate::error::{AnalysisError, Result};

/// The number that files open with.
const FORMAT: u32 = 1;
/// The tensor of the largest values, f32 `[features]`.
pub const MAXIMA: &str = "max";

/// Where statistics come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The store.
    pub store: String,
    /// The hook that was encoded.
    pub hook: String,
    /// Its site.
    pub site: String,
    /// The autoencoder's name in the store.
    pub sae: String,
    /// SHA-256 over its files, as the store has it.
    pub sae_sha256: String,
}

/// The content of a file of statistics in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsFile {
    /// The format's number, 1.
    pub format: u32,
    /// Where they come from.
    #[serde(flatten)]
    pub origin: Origin,
    /// Features there are.
    pub features: usize,
    /// Positions counted.
    pub rows: u64,
    /// Clips.
    pub clips: usize,
    /// Tracks.
    pub tracks: usize,
    /// The first position that was counted.
    pub first_position: usize,
    /// When a feature counts as active in a clip or a track: `any` of its values, or their `mean`, above `above`.
    pub rate: String,
    /// That bound.
    pub above: f32,
    /// The least rate a track that passes.
    pub min_rate: f64,
    /// The largest.
    pub max_rate: f64,
    /// Features that pass.
    pub passing: usize,
    /// Features that are active nowhere.
    pub never_active: usize,
    /// The classes of the labels; none without labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassCount>,
    /// Each feature, in order.
    pub table: Vec<StatsRow>,
}

/// One feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsRow {
    /// Its number.
    pub feature: usize,
    /// Positions at which it is above 0.
    pub count: u64,
    /// Share of positions at which it is above 0.
    pub rate_position: f64,
    /// Share of clips in which it is active.
    pub rate_clip: f64,
    /// Share of tracks in which it is active.
    pub rate_track: f64,
    /// Whether `rate_track` is within the bounds.
    pub passes: bool,
    /// Its mean over all positions.
    pub mean: f64,
    /// Its mean where it is above 0; 0 where it never is.
    pub mean_active: f64,
    /// Its largest value; 0 where it never is active.
    pub max: f32,
    /// The clip of that value.
    pub max_clip: Option<String>,
    /// The position in that clip.
    pub max_position: Option<usize>,
    /// Where that is in the recording, in seconds.
    pub max_seconds: Option<f64>,
    /// Its rate in each class that has tracks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_rates: Vec<Option<f64>>,
    /// The largest of these over their mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selectivity: Option<f64>,
    /// The class of the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

impl StatsFile {
    /// What is written of statistics; `rates` are the least and the largest a track that pass.
    pub fn new(
        stats: &Stats,
        codes: &Codes<'_>,
        labels: Option<&Labels>,
        options: StatsOptions,
        rates: [f64; 2],
        origin: Origin,
    ) -> Self {
        let [min_rate, max_rate] = rates;
        let row = |feature: usize| {
            let of = &stats.features[feature];
            let [rate_position, rate_clip, rate_track] = stats.rates(feature);
            let at = of.at.map(|(clip, position)| (&codes.clips()[clip], position));
            let (selectivity, class) = stats.selectivity(feature).unzip();
            StatsRow {
                feature,
                count: of.count,
                rate_position,
                rate_clip,
                rate_track,
                passes: (min_rate..=max_rate).contains(&rate_track),
                mean: of.sum / stats.rows.max(1) as f64,
                mean_active: of.sum / of.count.max(1) as f64,
                max: of.max,
                max_clip: at.map(|(clip, _)| clip.clip_id.clone()),
                max_position: at.map(|(_, position)| position),
                max_seconds: at.map(|(clip, position)| codes.seconds(clip, position)),
                class_rates: stats.class_rates(feature),
                selectivity,
                class: class.and_then(|class| Some(labels?.name(class).to_string())),
            }
        };
        let table: Vec<StatsRow> = (0..stats.features.len()).map(row).collect();
        let counts = stats.class_tracks.iter().enumerate();
        let class = |(class, &tracks): (usize, &u32)| {
            Some(ClassCount { label: labels?.name(class).to_string(), tracks })
        };
        Self {
            format: FORMAT,
            origin,
            features: table.len(),
            rows: stats.rows,
            clips: stats.clips,
            tracks: stats.tracks,
            first_position: options.from,
            rate: options.rate.name().into(),
            above: options.above,
            min_rate,
            max_rate,
            passing: table.iter().filter(|row| row.passes).count(),
            never_active: table.iter().filter(|row| row.count == 0).count(),
            classes: counts.filter_map(class).collect(),
            table,
        }
    }
}

/// Writes statistics: as JSON, as CSV (the table alone) or as safetensors (a tensor for each column of numbers), after the
/// ending of the name.
///
/// # Errors
/// [`AnalysisError::Usage`] for another ending; a file that cannot be written.
pub fn write_stats(path: &Path, file: &StatsFile) -> Result<()> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => {
            let mut text = serde_json::to_vec(file).expect("statistics have string keys and finite numbers");
            text.push(b'\n');
            Ok(atomic_write_bytes(path, &text)?)
        }
        Some("csv") => Ok(write_csv(path, file)?),
        Some("safetensors") => Ok(write_tensors(path, file)?),
        _ => {
            let found = format!("`{}`", path.display());
            Err(AnalysisError::usage("--out", found, "a name that ends in .json, .csv or .safetensors"))
        }
    }
}

fn write_csv(path: &Path, file: &StatsFile) -> Result<(), FileError> {
    let quoted = |text: &str| match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    };
    let or_empty = |value: Option<String>| value.unwrap_or_default();
    atomic_write(path, |out| {
        write!(out, "feature,count,rate_position,rate_clip,rate_track,passes,mean,mean_active,max")?;
        write!(out, ",max_clip,max_position,max_seconds")?;
        for class in &file.classes {
            write!(out, ",{}", quoted(&format!("rate {}", class.label)))?;
        }
        writeln!(out, "{}", if file.classes.is_empty() { "" } else { ",selectivity,class" })?;
        for row in &file.table {
            write!(out, "{},{},{},{}", row.feature, row.count, row.rate_position, row.rate_clip)?;
            write!(out, ",{},{},{},{}", row.rate_track, row.passes, row.mean, row.mean_active)?;
            write!(out, ",{},{}", row.max, or_empty(row.max_clip.as_deref().map(quoted)))?;
            write!(out, ",{}", or_empty(row.max_position.map(|p| p.to_string())))?;
            write!(out, ",{}", or_empty(row.max_seconds.map(|s| s.to_string())))?;
            row.class_rates
                .iter()
                .try_for_each(|rate| write!(out, ",{}", or_empty(rate.map(|r| r.to_string()))))?;
            if !file.classes.is_empty() {
                write!(out, ",{}", or_empty(row.selectivity.map(|s| s.to_string())))?;
                write!(out, ",{}", or_empty(row.class.as_deref().map(quoted)))?;
            }
            writeln!(out)?;
        }
        Ok(())
    })
}

fn write_tensors(path: &Path, file: &StatsFile) -> Result<(), FileError> {
    let column = |value: &dyn Fn(&StatsRow) -> f64| -> Vec<u8> {
        file.table.iter().flat_map(|row| (value(row) as f32).to_le_bytes()).collect()
    };
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let counts = file.table.iter().flat_map(|row| count(row.count).to_le_bytes()).collect();
    let [n, classes] = [file.table.len(), file.classes.len()];
    let mut tensors = vec![
        ("count", DType::I64, vec![n], counts),
        (MAXIMA, DType::F32, vec![n], column(&|row| row.max.into())),
        ("max_seconds", DType::F32, vec![n], column(&|row| row.max_seconds.unwrap_or(0.0))),
        ("mean", DType::F32, vec![n], column(&|row| row.mean)),
        ("mean_active", DType::F32, vec![n], column(&|row| row.mean_active)),
        ("rate_position", DType::F32, vec![n], column(&|row| row.rate_position)),
        ("rate_clip", DType::F32, vec![n], column(&|row| row.rate_clip)),
        ("rate_track", DType::F32, vec![n], column(&|row| row.rate_track)),
    ];
    if classes > 0 {
        let rates = file.table.iter().flat_map(|row| &row.class_rates);
        let rates = rates.flat_map(|rate| rate.map_or(f32::NAN, |rate| rate as f32).to_le_bytes()).collect();
        tensors.push(("class_rates", DType::F32, vec![n, classes], rates));
        tensors.push(("selectivity", DType::F32, vec![n], column(&|row| row.selectivity.unwrap_or(0.0))));
    }
    let origin = &file.origin;
    let mut metadata: Vec<(String, String)> = [
        ("store", &origin.store),
        ("hook", &origin.hook),
        ("site", &origin.site),
        ("sae", &origin.sae),
        ("sae_sha256", &origin.sae_sha256),
        ("rate", &file.rate),
    ]
    .map(|(name, value)| (name.to_string(), value.clone()))
    .into();
    let labels: Vec<&str> = file.classes.iter().map(|class| class.label.as_str()).collect();
    if classes > 0 {
        metadata.push(("classes".into(), serde_json::to_string(&labels).expect("strings always print")));
    }
    let specs: Vec<TensorSpec> =
        tensors.iter().map(|(name, dtype, shape, _)| TensorSpec::new(*name, *dtype, shape.clone())).collect();
    write_safetensors(path, &metadata, &specs, |i, out| out.write_all(&tensors[i].3))
}

/// The largest values of an autoencoder's features.
#[derive(Clone, Debug, PartialEq)]
pub struct Maxima {
    /// The site of the rows that were encoded.
    pub site: String,
    /// Each feature's; 0 where it never was active.
    pub values: Vec<f32>,
}

impl Maxima {
    /// Reads them from a file that [`write_stats`] wrote as JSON or safetensors.
    ///
    /// # Errors
    /// [`AnalysisError::Input`] for a file that holds none.
    pub fn read(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("json") => {
                let text = std::fs::read(path)
                    .map_err(|e| AnalysisError::input(path, "file", e, "a readable regular file"))?;
                let file: StatsFile = serde_json::from_slice(&text).map_err(|e| {
                    AnalysisError::input(path, "file", e, "statistics, as `features stats` writes them")
                })?;
                let values = file.table.iter().map(|row| row.max).collect();
                Self { site: file.origin.site, values }.checked(path)
            }
            Some("safetensors") => {
                let file = Weights::open(path)?;
                let view = file.get(MAXIMA).filter(|view| view.shape.len() == 1);
                let (Some(view), Some(site)) = (view, file.metadata("site")) else {
                    let names: Vec<&str> = file.names().collect();
                    let expected = format!("`{MAXIMA}` [features], and `site` in the metadata");
                    return Err(AnalysisError::input(path, "tensors", names.join(", "), expected));
                };
                Self { site: site.to_string(), values: view.to_f32()? }.checked(path)
            }
            _ => {
                let expected = "a name that ends in .json or .safetensors";
                Err(AnalysisError::input(path, "name", path.display(), expected))
            }
        }
    }

    fn checked(self, path: &Path) -> Result<Self> {
        match self.values.iter().position(|max| !max.is_finite() || *max < 0.0) {
            Some(at) => {
                let found = format!("{} of feature {at}", self.values[at]);
                Err(AnalysisError::input(path, MAXIMA, found, "a finite number from 0"))
            }
            None => Ok(self),
        }
    }
}
