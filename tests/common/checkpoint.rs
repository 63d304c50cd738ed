//! Writes the checkpoint behind a golden case, in each of the layouts that files on the hub have.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::golden::{Case, Kind};
use super::procedural::{Stored, WeightSpec};

/// How the two factors of a weight-normalised convolution are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightNorm {
    /// `weight_g`, `weight_v`: the published files.
    Published,
    /// `parametrizations.weight.original0`, `.original1`: files saved by a current transformers.
    Parametrized,
}

/// Which name the text encoder's embedding has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEmbedding {
    /// `text_encoder.shared.weight`
    Shared,
    /// `text_encoder.encoder.embed_tokens.weight`
    EmbedTokens,
    /// Both, with equal values.
    Both,
}

/// Tensors that inference does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    /// Weights only.
    None,
    /// Each codebook's `inited`, `cluster_size` and `embed_avg`: files saved by a current transformers.
    CodebookBuffers,
    /// Those and the decoder's `embed_positions.weights` [2048, d_model]: the published files.
    CodebookBuffersAndPositions,
}

/// Where the data of a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataStart {
    /// At a multiple of 8 bytes, as the safetensors crate pads its header.
    Aligned,
    /// At an odd byte, which the format allows.
    Odd,
}

/// How to lay a checkpoint out. The default is the published form: f32, one file, no extras.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Type of every tensor in the file.
    pub stored: Stored,
    /// A precision that the values pass through before they are stored; with `stored` f32 this is what a reader of
    /// a half-precision file must arrive at.
    pub rounded: Stored,
    /// Names of weight-normalised factors.
    pub weight_norm: WeightNorm,
    /// Name of the text embedding.
    pub text_embedding: TextEmbedding,
    /// What else the file holds.
    pub extras: Extras,
    /// 1 for `model.safetensors`; more for shards and `model.safetensors.index.json`.
    pub shards: usize,
    /// Where the data of each file begins.
    pub data_start: DataStart,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            stored: Stored::F32,
            rounded: Stored::F32,
            weight_norm: WeightNorm::Published,
            text_embedding: TextEmbedding::Shared,
            extras: Extras::None,
            shards: 1,
            data_start: DataStart::Aligned,
        }
    }
}

/// Positions in the table of the published files (HF `MusicgenDecoderConfig.max_position_embeddings`).
const POSITIONS: usize = 2048;

/// Where a tensor's values come from.
enum Source<'a> {
    Weight(&'a WeightSpec),
    Constant(f32),
    Positions,
}

struct Entry<'a> {
    name: String,
    shape: Vec<usize>,
    source: Source<'a>,
}

impl Entry<'_> {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    fn append(&self, layout: &Layout, bytes: &mut Vec<u8>) {
        let mut put = |value: f32| layout.stored.append(layout.rounded.round(value), bytes);
        match self.source {
            Source::Weight(weight) => weight.values().for_each(put),
            Source::Constant(value) => (0..self.count()).for_each(|_| put(value)),
            Source::Positions => {
                (0..POSITIONS).for_each(|p| position_row(p, self.shape[1]).for_each(&mut put))
            }
        }
    }
}

/// HF `MusicgenSinusoidalPositionalEmbedding`: cosines, then sines, of the f32 product of position and frequency.
fn position_row(position: usize, d_model: usize) -> impl Iterator<Item = f32> {
    let half = d_model / 2;
    let step = (10_000f64.ln() / (half as f64 - 1.0)) as f32;
    let angle = move |i: usize| f64::from(position as f32 * f64::from(i as f32 * -step).exp() as f32);
    (0..half).map(move |i| angle(i).cos() as f32).chain((0..half).map(move |i| angle(i).sin() as f32))
}

/// Makes `dir` a checkpoint directory of the case: `config.json` and the weights.
pub fn write_checkpoint(case: &Case, dir: &Path, layout: &Layout) {
    assert!(case.kind != Kind::Tables, "golden case `{}` has no model", case.name);
    fs::create_dir_all(dir).expect("the folder can be made");
    let config = case.config_json().replace("\"dtype\": \"float32\"", &dtype_line(layout.stored));
    fs::write(dir.join("config.json"), config).expect("config.json can be written");

    let entries = entries(case, layout);
    assert!(layout.shards >= 1 && layout.shards <= entries.len(), "each shard holds a tensor");
    if layout.shards == 1 {
        write_file(&dir.join("model.safetensors"), &entries, layout);
        return;
    }
    let mut weight_map = Map::new();
    let mut total = 0;
    for (i, part) in split(&entries, layout.shards).into_iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, layout.shards);
        write_file(&dir.join(&file), part, layout);
        for entry in part {
            weight_map.insert(entry.name.clone(), json!(file));
            total += entry.count() * layout.stored.size();
        }
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    let text = serde_json::to_vec_pretty(&index).expect("JSON");
    fs::write(dir.join("model.safetensors.index.json"), text).expect("the index can be written");
}

fn dtype_line(stored: Stored) -> String {
    format!("\"dtype\": \"{}\"", stored.config_name())
}

fn entries<'a>(case: &'a Case, layout: &Layout) -> Vec<Entry<'a>> {
    let mut all = Vec::new();
    for weight in &case.weights {
        let mut push = |name: String| {
            all.push(Entry { name, shape: weight.shape.clone(), source: Source::Weight(weight) })
        };
        if weight.name == "text_encoder.shared.weight" {
            if layout.text_embedding != TextEmbedding::EmbedTokens {
                push(weight.name.clone());
            }
            if layout.text_embedding != TextEmbedding::Shared {
                push("text_encoder.encoder.embed_tokens.weight".to_owned());
            }
            continue;
        }
        push(match layout.weight_norm {
            WeightNorm::Published => weight.name.clone(),
            WeightNorm::Parametrized => weight
                .name
                .replace(".weight_g", ".parametrizations.weight.original0")
                .replace(".weight_v", ".parametrizations.weight.original1"),
        });
        if let Some(codebook) = weight.name.strip_suffix(".embed")
            && layout.extras != Extras::None
        {
            let constant = |what: &str, shape: Vec<usize>| Entry {
                name: format!("{codebook}.{what}"),
                shape,
                source: Source::Constant(1.0),
            };
            all.push(constant("inited", vec![1]));
            all.push(constant("cluster_size", vec![weight.shape[0]]));
            let name = format!("{codebook}.embed_avg");
            all.push(Entry { name, shape: weight.shape.clone(), source: Source::Weight(weight) });
        }
        if weight.name == "decoder.model.decoder.embed_tokens.0.weight"
            && layout.extras == Extras::CodebookBuffersAndPositions
        {
            let name = "decoder.model.decoder.embed_positions.weights".to_owned();
            all.push(Entry { name, shape: vec![POSITIONS, weight.shape[1]], source: Source::Positions });
        }
    }
    all
}

/// Consecutive parts of about equal size, none empty.
fn split<'a, 'b>(entries: &'b [Entry<'a>], parts: usize) -> Vec<&'b [Entry<'a>]> {
    let total: usize = entries.iter().map(Entry::count).sum();
    let mut cut = Vec::new();
    let (mut rest, mut before) = (entries, 0);
    for part in 1..parts {
        let mut taken = 0;
        while taken == 0 || (before < total * part / parts && rest.len() - taken > parts - part) {
            before += rest[taken].count();
            taken += 1;
        }
        let (these, those) = rest.split_at(taken);
        cut.push(these);
        rest = those;
    }
    cut.push(rest);
    cut
}

fn write_file(path: &Path, entries: &[Entry], layout: &Layout) {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for entry in entries {
        let start = end;
        end += entry.count() * layout.stored.size();
        let dtype = layout.stored.header_name();
        let about = json!({"dtype": dtype, "shape": entry.shape, "data_offsets": [start, end]});
        header.insert(entry.name.clone(), about);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    let padded = match layout.data_start {
        DataStart::Aligned => header.len().next_multiple_of(8),
        DataStart::Odd => header.len() | 1,
    };
    header.resize(padded, b' ');

    let mut file = BufWriter::new(File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    let mut write =
        |bytes: &[u8]| file.write_all(bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    write(&(header.len() as u64).to_le_bytes());
    write(&header);
    // One tensor at a time: the real dimensions are gigabytes.
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.clear();
        entry.append(layout, &mut bytes);
        write(&bytes);
    }
    file.flush().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
