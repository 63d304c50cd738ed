//! Stored outputs of the Python reference: `tests/golden/<case>/`, made by `tests/golden/make_fixtures.py`;
//! what `make_generation_fixtures.py` adds is read through `generation.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::procedural::{Stored, WeightSpec};

/// What a case models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A whole MusicGen: T5, EnCodec (names under `audio_encoder.`), decoder.
    Musicgen,
    /// A whole MusicGen Melody: the same, chroma and text being rows before the columns.
    Melody,
    /// An EnCodec alone; its names have no prefix.
    Encodec,
    /// Functions, no model.
    Tables,
}

/// The values of one stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    I32(Vec<i32>),
}

/// One stored tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Values,
}

impl Tensor {
    /// The values of a float tensor.
    #[track_caller]
    pub fn f32(&self) -> &[f32] {
        match &self.values {
            Values::F32(values) => values,
            Values::I32(_) => panic!("an integer tensor was read as floats"),
        }
    }

    /// The values of an integer tensor.
    #[track_caller]
    pub fn i32(&self) -> &[i32] {
        match &self.values {
            Values::I32(values) => values,
            Values::F32(_) => panic!("a float tensor was read as integers"),
        }
    }

    /// Values in the tensor.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// How far Hugging Face's own float32 run is from its float64 run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HfError {
    /// Relative L2 error.
    pub rel_l2: f64,
    /// Largest element error over the RMS.
    pub elem_over_rms: f64,
}

#[derive(Deserialize)]
struct Manifest {
    case: String,
    kind: Kind,
    about: String,
    weights_sha256: Option<String>,
    expected_sha256: String,
    runs: Map<String, Value>,
    aliases: BTreeMap<String, String>,
    zeros: BTreeMap<String, Vec<usize>>,
    hf_f32_error: BTreeMap<String, [f64; 2]>,
    notes: Value,
    weights: Map<String, Value>,
}

/// One folder of expectations.
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// What the case models.
    pub kind: Kind,
    /// Why it exists.
    pub about: String,
    /// The folder.
    pub dir: PathBuf,
    /// SHA-256 of all weights as little-endian f32, in the order of `weights`; none for tables.
    pub weights_sha256: Option<String>,
    /// SHA-256 of the file of tensors.
    pub expected_sha256: String,
    /// Free-form facts about the case.
    pub notes: Value,
    /// What rebuilds every weight.
    pub weights: Vec<WeightSpec>,
    /// The stored tensors by name, without those that [`Case::tensor`] derives.
    pub stored: BTreeMap<String, Tensor>,
    runs: Map<String, Value>,
    aliases: BTreeMap<String, String>,
    zeros: BTreeMap<String, Vec<usize>>,
    hf_f32_error: BTreeMap<String, [f64; 2]>,
}

/// The folder that holds the committed cases: where the tests were built, or below the working directory where they were
/// carried to another machine.
pub fn golden_dir() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if built.is_dir() { built } else { PathBuf::from("tests/golden") }
}

impl Case {
    /// A committed case by name.
    pub fn committed(name: &str) -> Case {
        Case::open(golden_dir().join(name))
    }

    /// Every committed case, by name.
    pub fn all_committed() -> Vec<Case> {
        let mut dirs: Vec<PathBuf> = fs::read_dir(golden_dir())
            .expect("tests/golden is committed")
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.join("manifest.json").is_file())
            .collect();
        dirs.sort();
        dirs.into_iter().map(Case::open).collect()
    }

    /// Every committed case of one kind, by name.
    pub fn all_of(kind: Kind) -> Vec<Case> {
        Case::all_committed().into_iter().filter(|case| case.kind == kind).collect()
    }

    /// A case in any folder, such as one that `make_fixtures.py --cases small` wrote.
    pub fn open(dir: impl AsRef<Path>) -> Case {
        Case::open_files(dir, "manifest.json", "expected.safetensors")
    }

    /// A case from a manifest and a file of tensors in one folder.
    pub fn open_files(dir: impl AsRef<Path>, manifest: &str, expected: &str) -> Case {
        let dir = dir.as_ref();
        let path = dir.join(manifest);
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let manifest: Manifest =
            serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Case {
            stored: read_safetensors(&dir.join(expected)),
            name: manifest.case,
            kind: manifest.kind,
            about: manifest.about,
            dir: dir.to_owned(),
            weights_sha256: manifest.weights_sha256,
            expected_sha256: manifest.expected_sha256,
            notes: manifest.notes,
            weights: manifest.weights.iter().map(weight_spec).collect(),
            runs: manifest.runs,
            aliases: manifest.aliases,
            zeros: manifest.zeros,
            hf_f32_error: manifest.hf_f32_error,
        }
    }

    /// `config.json` as Hugging Face's `save_pretrained` writes it.
    pub fn config_json(&self) -> String {
        let path = self.dir.join("config.json");
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// One expectation by its full name: stored, equal to a stored one, or zero.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Tensor {
        if let Some(shape) = self.zeros.get(name) {
            let count = shape.iter().product();
            return Tensor { shape: shape.clone(), values: Values::F32(vec![0.0; count]) };
        }
        let held = self.aliases.get(name).map_or(name, String::as_str);
        match self.stored.get(held) {
            Some(tensor) => tensor.clone(),
            None => panic!("golden case `{}` holds no `{name}`", self.name),
        }
    }

    /// Hugging Face's own float32 error of an expectation, where it was measured.
    pub fn hf_error(&self, name: &str) -> Option<HfError> {
        let held = self.aliases.get(name).map_or(name, String::as_str);
        self.hf_f32_error.get(held).map(|&[rel_l2, elem_over_rms]| HfError { rel_l2, elem_over_rms })
    }

    /// Names of everything that [`Case::tensor`] answers to.
    pub fn names(&self) -> Vec<&str> {
        self.stored.keys().chain(self.aliases.keys()).chain(self.zeros.keys()).map(String::as_str).collect()
    }

    /// The teacher-forced forward passes.
    pub fn decoder_runs(&self) -> Vec<DecoderRun<'_>> {
        self.runs_of("decoder")
            .map(|(name, run)| DecoderRun { case: self, name, facts: fact(name, run) })
            .collect()
    }

    /// The codec's encode and decode passes.
    pub fn codec_runs(&self) -> Vec<CodecRun<'_>> {
        self.runs_of("codec")
            .map(|(name, run)| CodecRun { case: self, name, facts: fact(name, run) })
            .collect()
    }

    /// The runs of one kind, by name, as the manifest lists them.
    pub fn runs_of(&self, kind: &'static str) -> impl Iterator<Item = (&str, &Value)> {
        self.runs.iter().filter(move |(_, run)| run["kind"] == kind).map(|(name, run)| (name.as_str(), run))
    }
}

/// What the manifest says of a run.
pub fn fact<T: for<'a> Deserialize<'a>>(name: &str, run: &Value) -> T {
    T::deserialize(run).unwrap_or_else(|e| panic!("run `{name}`: {e}"))
}

/// What a decoder run was.
#[derive(Clone, Debug, Deserialize)]
pub struct DecoderFacts {
    /// Clips in the batch.
    pub batch: usize,
    /// EnCodec frames of each clip.
    pub frames: usize,
    /// Positions of each clip: `frames + 1`.
    pub steps: usize,
    /// Rows of codes.
    pub codebooks: usize,
    /// Delay of each codebook, in steps.
    pub delays: Vec<usize>,
    /// The precision that the weights were rounded through.
    pub weights: Stored,
    /// The steps kept in the expectations; all when none.
    pub positions: Option<Vec<usize>>,
}

/// One teacher-forced forward pass with null text.
pub struct DecoderRun<'a> {
    case: &'a Case,
    /// Name of the run, which prefixes its tensors.
    pub name: &'a str,
    /// What it was.
    pub facts: DecoderFacts,
}

impl DecoderRun<'_> {
    /// The codes before the delay pattern, `[batch, codebooks, frames]`.
    pub fn codes(&self) -> Tensor {
        self.case.tensor(&format!("{}.codes", self.name))
    }

    /// The decoder's input, `[batch, codebooks, steps]`; the vocabulary's size is the special token.
    pub fn delayed(&self) -> Tensor {
        self.case.tensor(&format!("{}.delayed", self.name))
    }

    /// The sites that the run holds, as `embed`, `layers.0.resid_pre`, ..., `final_norm`, `logits`.
    pub fn sites(&self) -> Vec<String> {
        let mut sites: Vec<String> = self
            .case
            .names()
            .iter()
            .filter_map(|name| name.strip_prefix(self.name)?.strip_prefix('.'))
            .filter(|site| !matches!(*site, "codes" | "delayed"))
            .map(str::to_owned)
            .collect();
        sites.sort_by_key(|site| forward_order(site));
        sites
    }

    /// The expectation at a site: `[batch, kept steps, d_model]`, `logits` `[batch, kept steps, codebooks, vocab]`.
    #[track_caller]
    pub fn site(&self, site: &str) -> Tensor {
        self.case.tensor(&format!("{}.{site}", self.name))
    }

    /// Hugging Face's own float32 error at a site.
    pub fn hf_error(&self, site: &str) -> Option<HfError> {
        self.case.hf_error(&format!("{}.{site}", self.name))
    }
}

/// Where a site lies in the forward pass, to sort by: (part, layer, place in the layer).
pub fn forward_order(site: &str) -> (usize, usize, usize) {
    const IN_LAYER: [&str; 6] =
        ["resid_pre", "self_attn_out", "resid_mid", "cross_attn_out", "mlp_out", "resid_post"];
    match site.split('.').collect::<Vec<_>>()[..] {
        ["embed"] => (0, 0, 0),
        ["layers", layer, at] => {
            let place = IN_LAYER.iter().position(|known| *known == at);
            let layer = layer.parse().unwrap_or_else(|e| panic!("site `{site}`: {e}"));
            (1, layer, place.unwrap_or_else(|| panic!("unknown site `{site}`")))
        }
        ["final_norm"] => (2, 0, 0),
        ["logits"] => (3, 0, 0),
        _ => panic!("unknown site `{site}`"),
    }
}

/// What a codec run was.
#[derive(Clone, Debug, Deserialize)]
pub struct CodecFacts {
    /// Samples encoded.
    pub samples: usize,
    /// Frames that they make.
    pub frames: usize,
    /// Codebooks at the first target bandwidth: those that `audio` and `quantized` are decoded from.
    pub codebooks: usize,
    /// Codebooks at the largest bandwidth: the rows of `codes`.
    pub all_codebooks: usize,
    /// The precision that the weights were rounded through.
    pub weights: Stored,
    /// Whether the output of every layer is stored.
    pub layers: bool,
    /// Codes where Hugging Face's float32 run chose otherwise.
    pub hf_f32_codes_differ: usize,
    /// The smallest margin.
    pub min_margin: f32,
}

/// One clip through the codec and back.
pub struct CodecRun<'a> {
    case: &'a Case,
    /// Name of the run, which prefixes its tensors.
    pub name: &'a str,
    /// What it was.
    pub facts: CodecFacts,
}

impl CodecRun<'_> {
    /// The samples encoded, `[samples]`.
    pub fn wav(&self) -> Tensor {
        self.tensor("wav")
    }

    /// The encoder's output, `[hidden, frames]`.
    pub fn latents(&self) -> Tensor {
        self.tensor("latents")
    }

    /// The codes of every codebook, `[all_codebooks, frames]`.
    pub fn codes(&self) -> Tensor {
        self.tensor("codes")
    }

    /// For each code `(d2 - d1) / d2` of the distances to the two nearest entries, `[all_codebooks, frames]`.
    pub fn margins(&self) -> Tensor {
        self.tensor("margins")
    }

    /// The sum of the looked-up vectors of the first `codebooks` rows of `codes`, `[hidden, frames]`.
    pub fn quantized(&self) -> Tensor {
        self.tensor("quantized")
    }

    /// What those rows decode to, `[frames * hop]`.
    pub fn audio(&self) -> Tensor {
        self.tensor("audio")
    }

    /// Any tensor of the run: also `encoder.layers.N` and `decoder.layers.N`, `[channels, time]`.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Tensor {
        self.case.tensor(&format!("{}.{name}", self.name))
    }

    /// Hugging Face's own float32 error of a tensor of the run.
    pub fn hf_error(&self, name: &str) -> Option<HfError> {
        self.case.hf_error(&format!("{}.{name}", self.name))
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Stored, D::Error> {
        match String::deserialize(from)?.as_str() {
            "f32" => Ok(Stored::F32),
            "f16" => Ok(Stored::F16),
            "bf16" => Ok(Stored::Bf16),
            other => Err(serde::de::Error::unknown_variant(other, &["f32", "f16", "bf16"])),
        }
    }
}

/// `"name": [shape, mean, amp]` or `[shape, mean, amp, hash name]`.
fn weight_spec((name, entry): (&String, &Value)) -> WeightSpec {
    let number =
        |i: usize| entry[i].as_f64().unwrap_or_else(|| panic!("weight `{name}`: entry {i} is no number"));
    WeightSpec {
        name: name.clone(),
        shape: Vec::deserialize(&entry[0]).unwrap_or_else(|e| panic!("weight `{name}`: {e}")),
        // The manifest spells each f32 in its shortest decimal form.
        mean: number(1) as f32,
        amp: number(2) as f32,
        hash_name: entry[3].as_str().unwrap_or(name).to_owned(),
    }
}

/// Every tensor of a safetensors file.
pub fn read_safetensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.iter()
        .map(|(name, view)| {
            let words = view.data().as_chunks::<4>().0.iter();
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(words.map(|w| f32::from_le_bytes(*w)).collect()),
                Dtype::I32 => Values::I32(words.map(|w| i32::from_le_bytes(*w)).collect()),
                other => panic!("{}: `{name}` is {other:?}, expected F32 or I32", path.display()),
            };
            (name.to_owned(), Tensor { shape: view.shape().to_vec(), values })
        })
        .collect()
}
