//! `auscult sae encode`: the active features of rows and of stores.

use super::bar;
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::rows::read_rows;
use auscult_analysis::store::{StoreReader, index_dtype, narrowed};
use auscult_kernels::DType;
use auscult_model::ModelError;
use auscult_model::musicgen::{Precision, Site};
use auscult_model::sae::{Encoder, NotFinite, Sae, SaePrecision, SparseRows};
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Rows that are encoded between two steps of the bar.
const BLOCK_ROWS: usize = 4096;

#[derive(clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("rows").required(true).args(["input", "store"])))]
pub struct EncodeArgs {
    /// A directory that SAELens, sparsify, Gemma Scope or Llama Scope wrote, or `params.npz`
    #[arg(long)]
    pub sae: PathBuf,
    /// Rows of activations: .npy, or a tensor of a safetensors file; the last axis is a row
    #[arg(long)]
    input: Option<PathBuf>,
    /// The tensor of --input; `resid` or the only one by default
    #[arg(long, requires = "input")]
    tensor: Option<String>,
    /// A store; its clips are encoded in the order of its index
    #[arg(long)]
    store: Option<PathBuf>,
    /// Where the rows come from: of a store by default the hook that the autoencoder names, of a file nothing is known
    #[arg(long)]
    pub hook: Option<String>,
    /// Features kept of a row; by default as many as the autoencoder allows, or as the row with the most has
    #[arg(long)]
    pub k: Option<usize>,
    /// Encode rows of another hook than the autoencoder names; the file's metadata, or the store's `run.json`, says so
    #[arg(long)]
    pub allow_misaligned: bool,
    /// Rows with NaN or an infinite value, and those so large that a feature is not finite: `refuse` ends with exit code 3, `mark`
    /// writes index 0 and value NaN in all places of such a row; to a file alone, values of a store are finite
    #[arg(long, value_name = "refuse|mark", default_value = "refuse")]
    not_finite: OfNotFinite,
    /// The file to write, or of a store the store of features: a directory that is empty or absent
    #[arg(long)]
    pub out: PathBuf,
    /// Go on with a store of features that was left unfinished
    #[arg(long, requires = "store")]
    pub resume: bool,
}

/// [`NotFinite`] on the command line.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OfNotFinite {
    Refuse,
    Mark,
}

impl From<OfNotFinite> for NotFinite {
    fn from(what: OfNotFinite) -> Self {
        match what {
            OfNotFinite::Refuse => Self::Refuse,
            OfNotFinite::Mark => Self::Mark,
        }
    }
}

pub fn encode(context: &Context, args: &EncodeArgs) -> Result<()> {
    let to_file = args.out.extension().is_some_and(|e| e == "safetensors");
    if args.store.is_none() && !to_file {
        return Err(Failure::usage(format!("--out is {}, expected a .safetensors file", args.out.display())));
    }
    if args.resume && to_file {
        let message = format!("--resume with --out {}, expected a directory", args.out.display());
        return Err(Failure::usage(message));
    }
    if args.not_finite == OfNotFinite::Mark && !to_file {
        return Err(Failure::usage(format!(
            "--not-finite is mark with --out {}, expected a .safetensors file: values of a store are finite",
            args.out.display()
        )));
    }
    let not_finite = NotFinite::from(args.not_finite);
    let sae = Sae::open(&args.sae)?;
    if let Some(k) = args.k
        && !(1..=sae.features()).contains(&k)
    {
        return Err(Failure::usage(format!(
            "--k is {k}, expected 1 to {}, the features there are",
            sae.features()
        )));
    }
    let precision = precision(context)?;
    if let (Some(store), false) = (&args.store, to_file) {
        return super::store::encode_store(context, args, &sae, precision, store);
    }
    let mut checked = Checked { sae: &sae, allow: args.allow_misaligned, misaligned: None };
    let mut encoder = Encoder::new(&sae, precision, &context.backend()?)?;
    let mut parts: Vec<SparseRows> = Vec::new();
    let mut hook = args.hook.clone();
    match (&args.input, &args.store) {
        (Some(input), _) => {
            if let Some(hook) = &args.hook {
                checked.check(hook.parse()?)?;
            }
            let rows = read_rows(input, args.tensor.as_deref())?;
            sae.check_width(input.display(), rows.width)?;
            let bar = bar(context, rows.values.len() / rows.width);
            for block in rows.values.chunks(BLOCK_ROWS * rows.width) {
                parts.push(encoder.encode_with(block, not_finite).map_err(|e| of_file(e, input))?);
                bar.inc((block.len() / rows.width) as u64);
            }
            bar.finish_and_clear();
        }
        (None, Some(store)) => {
            let reader = StoreReader::open(store)?;
            let name = hook_of(&reader, &sae, args.hook.as_deref())?;
            let site = reader.hook(&name)?;
            sae.check_width(format!("{name} of {}", store.display()), site.width)?;
            checked.check(site.site.parse()?)?;
            let bar = bar(context, reader.clips().iter().map(|clip| clip.positions).sum());
            for clip in reader.clips() {
                let rows = reader.rows(&name, &clip.clip_id)?;
                parts.push(encoder.encode_with(&rows, not_finite).map_err(|e| of_file(e, store))?);
                bar.inc(clip.positions as u64);
            }
            bar.finish_and_clear();
            hook = Some(name);
        }
        (None, None) => unreachable!("clap asks for one of them"),
    }
    let misaligned = checked.misaligned;
    let codes = SparseRows::joined(&parts, args.k.or(sae.k()));
    let (k, rows, active, marked) = (codes.k, codes.rows(), codes.active(), codes.marked());

    let mut metadata = vec![
        ("sae".to_string(), args.sae.display().to_string()),
        ("features".to_string(), sae.features().to_string()),
        ("precision".to_string(), precision.to_string()),
    ];
    metadata.extend(hook.iter().map(|hook| ("hook".to_string(), hook.clone())));
    metadata.extend(misaligned.iter().map(|why| ("misaligned".to_string(), why.clone())));
    if not_finite == NotFinite::Mark {
        metadata.push(("not_finite_rows".to_string(), marked.to_string()));
    }
    let index = index_dtype(sae.features());
    let specs =
        [TensorSpec::new("indices", index, [rows, k]), TensorSpec::new("values", DType::F32, [rows, k])];
    write_safetensors(&args.out, &metadata, &specs, |i, out| match i {
        0 => out.write_all(&narrowed(&codes.indices, index)),
        _ => codes.values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
    })?;
    let mean = active as f64 / (rows - marked).max(1) as f64;
    let mut text = format!(
        "{}: {rows} rows x {k} of {} features, {mean:.2} active a row",
        args.out.display(),
        sae.features()
    );
    if marked > 0 {
        text += &format!("; {marked} rows are not finite, their values NaN");
    }
    let json = json!({
        "out": args.out, "rows": rows, "k": k, "features": sae.features(), "active": active, "not_finite": marked, "hook": hook,
        "precision": precision.name(), "misaligned": misaligned.map_or(Value::Bool(false), Value::String),
    });
    context.result(&text, &json);
    Ok(())
}

/// What the encoder multiplies in: f32 unless bf16 is asked for.
fn precision(context: &Context) -> Result<SaePrecision> {
    match context.global.precision {
        None | Some(Precision::F32) => Ok(SaePrecision::F32),
        Some(Precision::BF16) => Ok(SaePrecision::Bf16),
        Some(Precision::F16) => Err(Failure::usage(
            "--precision is f16, expected f32 or bf16: rows of a model go beyond the range of f16",
        )),
    }
}

/// Rows that cannot be encoded are the fault of the file they lie in.
pub fn of_file(error: ModelError, file: &Path) -> anyhow::Error {
    match error {
        ModelError::Argument { .. } => Failure::input(format!("{}: {error}", file.display())),
        other => other.into(),
    }
}

/// The hook check, which an option turns into a remark.
pub struct Checked<'a> {
    pub sae: &'a Sae,
    pub allow: bool,
    /// What does not fit.
    pub misaligned: Option<String>,
}

impl Checked<'_> {
    pub fn check(&mut self, site: Site) -> Result<()> {
        match self.sae.check_hook(site) {
            Err(error @ ModelError::Misfit { .. }) if self.allow => {
                self.misaligned = Some(error.to_string());
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// The store's hook that is meant: named, or where the autoencoder was trained, or the only one.
pub fn hook_of(reader: &StoreReader, sae: &Sae, named: Option<&str>) -> Result<String> {
    if let Some(name) = named {
        return Ok(reader.hook(name)?.hook.clone());
    }
    let hooks = &reader.meta().sites;
    let trained = sae.hook().and_then(|hook| hook.parse::<Site>().ok()).map(|site| site.to_string());
    if let Some(hook) = hooks.iter().find(|hook| Some(&hook.site) == trained.as_ref()) {
        return Ok(hook.hook.clone());
    }
    let there: Vec<&str> = hooks.iter().map(|hook| hook.hook.as_str()).collect();
    match (hooks.as_slice(), sae.hook()) {
        ([only], _) => Ok(only.hook.clone()),
        (_, Some(hook)) => Err(Failure::refused(format!(
            "{}: has no hook `{hook}`, where the autoencoder was trained, expected one of {}; `--hook` with \
             `--allow-misaligned` encodes another",
            reader.dir().display(),
            there.join(", ")
        ))),
        (_, None) => {
            Err(Failure::usage(format!("--hook is not given, expected one of {}", there.join(", "))))
        }
    }
}
