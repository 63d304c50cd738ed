//! `auscult sae`: look at an autoencoder, encode activations.

use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::rows::read_rows;
use auscult_analysis::store::StoreReader;
use auscult_kernels::DType;
use auscult_model::ModelError;
use auscult_model::musicgen::Site;
use auscult_model::sae::{Sae, SparseRows};
use auscult_runtime::CpuBackend;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Rows that are encoded between two steps of the bar.
const BLOCK_ROWS: usize = 4096;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Shapes, architecture, hook, lengths of the decoder's directions, sparsity
    Info {
        /// A directory that SAELens or sparsify wrote
        sae: PathBuf,
    },
    /// Encode activations, on the processor, to a safetensors file: `indices` and `values` [rows, k], the largest first
    Encode(Box<EncodeArgs>),
}

#[derive(clap::Args)]
pub struct EncodeArgs {
    /// A directory that SAELens or sparsify wrote
    #[arg(long)]
    sae: PathBuf,
    /// Rows of activations: .npy, or a tensor of a safetensors file; the last axis is a row
    #[arg(long, required_unless_present = "store", conflicts_with = "store")]
    input: Option<PathBuf>,
    /// The tensor of --input; `resid` or the only one by default
    #[arg(long, requires = "input")]
    tensor: Option<String>,
    /// A store; its clips are encoded in the order of its index
    #[arg(long)]
    store: Option<PathBuf>,
    /// Where the rows come from: of a store by default the hook that the autoencoder names, of a file nothing is known
    #[arg(long)]
    hook: Option<String>,
    /// Features kept of a row; by default as many as the autoencoder allows, or as the row with the most has
    #[arg(long)]
    k: Option<usize>,
    /// Encode rows of another hook than the autoencoder names; the file's metadata says so
    #[arg(long)]
    allow_misaligned: bool,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Info { sae } => info(context, sae),
        Command::Encode(args) => {
            // on as many threads as were asked for
            let processor = CpuBackend::new(context.global.threads)?;
            processor.pool().install(|| encode(context, args))
        }
    }
}

fn info(context: &Context, dir: &Path) -> Result<()> {
    let sae = Sae::open(dir)?;
    let settings = sae.settings();
    let metadata = &settings.metadata;
    let norms = sae.decoder_norms();
    let least = norms.iter().copied().fold(f32::INFINITY, f32::min);
    let most = norms.iter().copied().fold(0.0, f32::max);
    let mean = norms.iter().map(|&n| f64::from(n)).sum::<f64>() / norms.len() as f64;
    let sparsity = sae.read_sparsity(dir)?.map(|logs| Sparsity::of(&logs));
    let site = sae.hook().and_then(|hook| hook.parse::<Site>().ok());
    let fused = sae.top_k().err().map(|why| why.to_string());

    let active = sae.k().map_or("any number".to_string(), |k| format!("at most {k}"));
    let mut text = format!("{}: {} x {} features\n", dir.display(), sae.width(), sae.features());
    text += &format!("active    {active} a row ({})\n", settings.activation.architecture());
    text += &format!("hook      {}", sae.hook().unwrap_or("not named"));
    text += &site.map_or("\n".to_string(), |site| format!(" = {site}\n"));
    text += &format!("model     {}\n", metadata.model.as_deref().unwrap_or("not named"));
    let subtracted = if settings.apply_b_dec_to_input { "b_dec subtracted" } else { "b_dec not subtracted" };
    text += &format!("input     {subtracted}, normalisation {}\n", settings.normalize.name());
    text += &format!("decoder   lengths of directions {least:.4} to {most:.4}, mean {mean:.4}\n");
    if let Some(Sparsity { active, silent, rare }) = sparsity {
        text += &format!(
            "training  {active:.1} features active a row; {silent} never, {rare} in less than one row of 100,000\n"
        );
    }
    let generation = match &fused {
        None => "its features can be edited while music is generated",
        Some(why) => why,
    };
    text += &format!("generate  {generation}");
    let json = json!({
        "path": dir, "architecture": settings.activation.architecture(), "d_in": sae.width(), "d_sae": sae.features(),
        "k": sae.k(), "hook": sae.hook(), "site": site.map(|s| s.to_string()), "layer": metadata.layer, "model": metadata.model,
        "apply_b_dec_to_input": settings.apply_b_dec_to_input, "normalize_activations": settings.normalize.name(),
        "decoder_norms": { "min": least, "mean": mean, "max": most },
        "sparsity": sparsity.map(|s| json!({ "active": s.active, "silent": s.silent, "rare": s.rare })),
        "generates": fused.is_none(), "metadata": metadata.other,
    });
    context.result(&text, &json);
    Ok(())
}

/// What the shares of rows say in which features were active in training.
#[derive(Clone, Copy)]
struct Sparsity {
    /// Features active in a row, on average.
    active: f64,
    /// Features never active.
    silent: usize,
    /// Features active in less than one row of 100,000, the silent ones among them.
    rare: usize,
}

impl Sparsity {
    fn of(logs: &[f32]) -> Self {
        // SAELens writes log10(share + 1e-10)
        let below = |limit: f32| logs.iter().filter(|&&log| log < limit).count();
        let active = logs.iter().map(|&log| 10f64.powf(f64::from(log))).sum();
        Self { active, silent: below(-9.5), rare: below(-5.0) }
    }
}

fn encode(context: &Context, args: &EncodeArgs) -> Result<()> {
    if args.out.extension().is_none_or(|e| e != "safetensors") {
        return Err(Failure::usage(format!("--out is {}, expected a .safetensors file", args.out.display())));
    }
    let sae = Sae::open(&args.sae)?;
    if let Some(k) = args.k
        && !(1..=sae.features()).contains(&k)
    {
        return Err(Failure::usage(format!(
            "--k is {k}, expected 1 to {}, the features there are",
            sae.features()
        )));
    }
    let mut checked = Checked { sae: &sae, allow: args.allow_misaligned, misaligned: None };
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
                parts.push(sae.encode(block).map_err(|e| of_file(e, input))?);
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
                parts.push(sae.encode(&rows).map_err(|e| of_file(e, store))?);
                bar.inc(clip.positions as u64);
            }
            bar.finish_and_clear();
            hook = Some(name);
        }
        (None, None) => unreachable!("clap asks for one of them"),
    }
    let misaligned = checked.misaligned;
    let k = args.k.or(sae.k()).unwrap_or_else(|| parts.iter().map(|part| part.k).max().unwrap_or(1));
    let parts: Vec<SparseRows> = parts.iter().map(|part| part.resized(k)).collect();
    let rows: usize = parts.iter().map(SparseRows::rows).sum();
    let active: usize = parts.iter().map(SparseRows::active).sum();

    let mut metadata = vec![
        ("sae".to_string(), args.sae.display().to_string()),
        ("features".to_string(), sae.features().to_string()),
    ];
    metadata.extend(hook.iter().map(|hook| ("hook".to_string(), hook.clone())));
    metadata.extend(misaligned.iter().map(|why| ("misaligned".to_string(), why.clone())));
    // the type of indices in stores
    let narrow = u16::try_from(sae.features() - 1).is_ok();
    let index = if narrow { DType::U16 } else { DType::U32 };
    let specs =
        [TensorSpec::new("indices", index, [rows, k]), TensorSpec::new("values", DType::F32, [rows, k])];
    write_safetensors(&args.out, &metadata, &specs, |i, out| {
        parts.iter().try_for_each(|part| match i {
            0 => write_indices(out, &part.indices, narrow),
            _ => part.values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        })
    })?;
    let mean = active as f64 / rows.max(1) as f64;
    let text = format!(
        "{}: {rows} rows x {k} of {} features, {mean:.2} active a row",
        args.out.display(),
        sae.features()
    );
    let json = json!({
        "out": args.out, "rows": rows, "k": k, "features": sae.features(), "active": active, "hook": hook,
        "misaligned": misaligned.map_or(Value::Bool(false), Value::String),
    });
    context.result(&text, &json);
    Ok(())
}

fn bar(context: &Context, rows: usize) -> indicatif::ProgressBar {
    context.bar(rows as u64, "{bar:30} row {pos} of {len} {per_sec} {eta}")
}

/// Rows that cannot be encoded are the fault of the file they lie in.
fn of_file(error: ModelError, file: &Path) -> anyhow::Error {
    match error {
        ModelError::Argument { .. } => Failure::input(format!("{}: {error}", file.display())),
        other => other.into(),
    }
}

fn write_indices(out: &mut dyn Write, indices: &[u32], narrow: bool) -> std::io::Result<()> {
    indices.iter().try_for_each(|index| match u16::try_from(*index) {
        Ok(index) if narrow => out.write_all(&index.to_le_bytes()),
        _ => out.write_all(&index.to_le_bytes()),
    })
}

/// The hook check, which an option turns into a remark.
struct Checked<'a> {
    sae: &'a Sae,
    allow: bool,
    misaligned: Option<String>,
}

impl Checked<'_> {
    fn check(&mut self, site: Site) -> Result<()> {
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
fn hook_of(reader: &StoreReader, sae: &Sae, named: Option<&str>) -> Result<String> {
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
