//! What a conversion will write, collected before anything is written: tensors with the place they come from, and the
//! small files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use auscult_kernels::DType;
use auscult_runtime::safetensors_io::TensorSpec;
use auscult_runtime::weights::Weights;
use serde_json::Value;

use super::audiocraft::State;
use super::pickle::TensorView;
use super::torch_zip::TorchFile;
use super::{ConvertKind, ConvertReport};
use crate::config::{CONFIG_FILE, read_json};
use crate::error::{ModelError, Result};
use crate::layout::LayoutTensor;
use crate::output::{FillError, OutputDir, Progress, SHARD_BYTES};

/// Small files of a Hugging Face directory that are carried over as they are.
const CARRIED: [&str; 8] = [
    "generation_config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];
/// Longest small file that is carried over; a T5 tokenizer has 2.4 MB.
const MAX_CARRIED_BYTES: u64 = 64 << 20;

/// Where a tensor's bytes come from.
#[derive(Clone, Debug)]
enum Source {
    Torch { file: usize, view: TensorView },
    Weights { file: usize, name: String },
}

/// A tensor of some input.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub spec: TensorSpec,
    source: Source,
}

impl Planned {
    /// The same tensor under another name.
    pub fn renamed(self, name: impl Into<String>) -> Self {
        let Self { mut spec, source } = self;
        spec.name = name.into();
        Self { spec, source }
    }

    /// Three equal parts of the first axis under three names, or `None` when it does not divide, or when the tensor does
    /// not come from a torch archive.
    pub fn split(self, names: [String; 3]) -> Option<[Self; 3]> {
        let Source::Torch { file, view } = self.source else { return None };
        let rows = *view.shape.first()?;
        if !rows.is_multiple_of(3) {
            return None;
        }
        let part = |i: u64| view.narrow(i * (rows / 3), rows / 3);
        let [a, b, c] = names;
        Some([planned(a, file, part(0)?)?, planned(b, file, part(1)?)?, planned(c, file, part(2)?)?])
    }
}

fn planned(name: impl Into<String>, file: usize, view: TensorView) -> Option<Planned> {
    let shape: Option<Vec<usize>> = view.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let spec = TensorSpec::new(name, view.storage.dtype.written_as(), shape?);
    Some(Planned { spec, source: Source::Torch { file, view } })
}

/// Everything that a conversion will write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    torch: Vec<TorchFile>,
    weights: Vec<Weights>,
    pub tensors: Vec<Planned>,
    pub json: Vec<(String, Value)>,
    pub carried: Vec<(String, Vec<u8>)>,
    pub dropped: Vec<String>,
    pub notes: Vec<String>,
}

impl Plan {
    /// Opens an archive's state dict as tensors, in the order of their names.
    pub fn add_torch(&mut self, mut file: TorchFile, state: &State) -> Result<Vec<Planned>> {
        let index = self.torch.len();
        let mut tensors = Vec::new();
        let mut changed: BTreeMap<(&str, DType), usize> = BTreeMap::new();
        for (name, view) in state {
            file.check(view)?;
            let dtype = view.storage.dtype;
            if !dtype.is_verbatim() {
                *changed.entry((dtype.storage_name(), dtype.written_as())).or_default() += 1;
            }
            let tensor = planned(name, index, view.clone()).ok_or_else(|| {
                ModelError::file(file.path(), format!("`{name}` has more elements than memory"))
            })?;
            tensors.push(tensor);
        }
        for ((storage, dtype), count) in changed {
            self.notes.push(format!("types: {} of torch.{storage} written as {dtype}", self::tensors(count)));
        }
        self.torch.push(file);
        Ok(tensors)
    }

    /// Opens the tensors of a directory in the Hugging Face layout: safetensors, or torch archives where it has none.
    pub fn add_directory(&mut self, dir: &Path) -> Result<Vec<Planned>> {
        let archives = torch_archives(dir)?;
        let has_safetensors =
            ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| dir.join(name).exists());
        if archives.is_empty() || has_safetensors {
            let weights = Weights::open(dir)?;
            let file = self.weights.len();
            let tensors = weights
                .iter()
                .map(|view| Planned {
                    spec: TensorSpec::new(view.name, view.dtype, view.shape),
                    source: Source::Weights { file, name: view.name.to_string() },
                })
                .collect();
            self.weights.push(weights);
            return Ok(tensors);
        }
        let mut tensors = Vec::new();
        for path in archives {
            let file = TorchFile::open(&path)?;
            let (state, skipped) = super::state_dict(&file)?;
            self.dropped.extend(skipped);
            tensors.extend(self.add_torch(file, &state)?);
        }
        Ok(tensors)
    }

    /// Carries over the small files of `dir` (tokenizer, generation defaults) that the plan has not got yet.
    pub fn carry(&mut self, dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
        for name in CARRIED.into_iter().filter(|name| wanted(name)) {
            let path = dir.join(name);
            let taken =
                self.json.iter().any(|(n, _)| n == name) || self.carried.iter().any(|(n, _)| n == name);
            if taken || !path.is_file() {
                continue;
            }
            let bytes = std::fs::metadata(&path).map_err(ModelError::io("read", &path))?.len();
            if bytes > MAX_CARRIED_BYTES {
                let message = format!("has {bytes} bytes, expected at most {MAX_CARRIED_BYTES}");
                return Err(ModelError::file(&path, message));
            }
            let content = std::fs::read(&path).map_err(ModelError::io("read", &path))?;
            self.carried.push((name.to_string(), content));
        }
        Ok(())
    }

    /// Writes everything, `config.json` last.
    pub fn write(mut self, kind: ConvertKind, out: &Path, progress: Progress<'_>) -> Result<ConvertReport> {
        let specs: Vec<TensorSpec> = self.tensors.iter().map(|tensor| tensor.spec.clone()).collect();
        let mut dir = OutputDir::create(out)?;
        let mut bytes = 0;
        let mut count = |done: u64, total: u64| {
            bytes = total;
            progress(done, total);
        };
        let (torch, weights, tensors) = (&mut self.torch, &self.weights, &self.tensors);
        dir.weights(
            &specs,
            SHARD_BYTES,
            &mut count,
            &mut |i, out: &mut dyn Write| match &tensors[i].source {
                Source::Torch { file, view } => torch[*file].copy(view, out),
                Source::Weights { file, name } => {
                    let view = weights[*file].get(name).expect("the name was listed by this file");
                    out.write_all(view.bytes).map_err(FillError::Write)
                }
            },
        )?;
        for (name, content) in &self.carried {
            dir.bytes(name, content)?;
        }
        self.json.sort_by_key(|(name, _)| name == CONFIG_FILE);
        for (name, value) in &self.json {
            dir.json(name, value)?;
        }
        Ok(ConvertReport {
            kind,
            tensors: specs.len(),
            bytes,
            dropped: self.dropped,
            notes: self.notes,
            files: dir.finish(),
        })
    }
}

/// The torch archives of a Hugging Face directory: `pytorch_model.bin`, or the shards of its index.
pub(super) fn torch_archives(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join("pytorch_model.bin");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join("pytorch_model.bin.index.json");
    if !index.is_file() {
        return Ok(Vec::new());
    }
    let json = read_json(&index)?;
    let Some(Value::Object(map)) = json.get("weight_map") else {
        return Err(ModelError::config(&index, "weight_map", "absent", "an object from names to files"));
    };
    let mut names: Vec<&str> = Vec::new();
    for (tensor, name) in map {
        match name.as_str() {
            Some(name) if name.ends_with(".bin") && !name.contains(['/', '\\', ':']) => names.push(name),
            _ => {
                let field = format!("weight_map.{tensor}");
                return Err(ModelError::config(&index, field, name, "a .bin file beside the index"));
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Tensors that a model runs without: the codebooks' training statistics and the table of positions.
fn is_optional(name: &str) -> bool {
    ["codebook.embed_avg", "codebook.cluster_size", "codebook.inited", "embed_positions.weights"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Holds tensors against what their configuration demands; all disagreements in one error.
pub(super) fn account(file: &Path, tensors: &[Planned], expected: &[LayoutTensor]) -> Result<()> {
    let published = |name: &str| {
        name.replace("parametrizations.weight.original0", "weight_g")
            .replace("parametrizations.weight.original1", "weight_v")
            .replace("encoder.embed_tokens.weight", "shared.weight")
    };
    let found: BTreeMap<String, &[usize]> =
        tensors.iter().map(|tensor| (published(&tensor.spec.name), tensor.spec.shape.as_slice())).collect();
    let wanted: BTreeMap<&str, &[usize]> =
        expected.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    for (&name, &shape) in &wanted {
        match found.get(name) {
            None if !is_optional(name) => missing.push(format!("{name} {shape:?}")),
            Some(&other) if other != shape => {
                misshapen.push(format!("{name} {other:?} (expected {shape:?})"));
            }
            _ => {}
        }
    }
    let surplus: Vec<String> = found
        .iter()
        .filter(|(name, _)| !wanted.contains_key(name.as_str()) && !is_optional(name))
        .map(|(name, shape)| format!("{name} {shape:?}"))
        .collect();
    let complaints: Vec<String> =
        [("lacks", missing), ("has misshapen", misshapen), ("has unexpected", surplus)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(verb, names)| list(verb, &names))
            .collect();
    if complaints.is_empty() { Ok(()) } else { Err(ModelError::file(file, complaints.join("; "))) }
}

/// "lacks 12 tensors: a, b, ...".
pub(super) fn list(verb: &str, names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{verb} {}: {shown}{more}", tensors(names.len()))
}

/// "1 tensor", "2 tensors".
pub(super) fn tensors(count: usize) -> String {
    format!("{count} tensor{}", if count == 1 { "" } else { "s" })
}
