//! `auscult sae`: look at an autoencoder, prove where it belongs, score it, encode activations, train.

mod align;
pub mod audio;
mod encode;
mod eval;
pub mod files;
mod info;
mod store;
mod train;

use crate::context::Context;
use anyhow::Result;
use auscult_runtime::CpuBackend;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Shapes, architecture, hook, lengths of the decoder's directions, sparsity
    Info {
        /// A directory that SAELens, sparsify, Gemma Scope or Llama Scope wrote, or `params.npz`
        sae: PathBuf,
    },
    /// Encode activations, on the device where it can, to a safetensors file (`indices` and `values` of rows by k, the largest
    /// first), or those of a store to a store of features
    Encode(Box<encode::EncodeArgs>),
    /// Prove at which site an autoencoder was trained: its scores at every layer; exit code 4 where its file names another
    Align(Box<align::AlignArgs>),
    /// Score an autoencoder at its site: reconstruction, features, what it costs the model, duplicates
    Eval(Box<eval::EvalArgs>),
    /// Train autoencoders on rows of a file, of a store, or of audio as the model hears it; written in SAELens' format
    Train(Box<train::TrainArgs>),
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Info { sae } => info::info(context, sae),
        Command::Encode(args) => on_threads(context, || encode::encode(context, args)),
        Command::Align(args) => on_threads(context, || align::align(context, args)),
        Command::Eval(args) => on_threads(context, || eval::eval(context, args)),
        Command::Train(args) => on_threads(context, || train::train(context, args)),
    }
}

/// Work of the processor on as many threads as were asked for.
fn on_threads(context: &Context, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    CpuBackend::new(context.global.threads)?.pool().install(work)
}

fn bar(context: &Context, rows: usize) -> indicatif::ProgressBar {
    context.bar(rows as u64, "{bar:30} row {pos} of {len} {per_sec} {eta}")
}
