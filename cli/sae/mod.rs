//! `auscult sae`: look at an autoencoder, encode activations.

mod encode;
pub mod files;
mod info;
mod store;

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
    /// Encode activations, on the processor, to a safetensors file (`indices` and `values` of rows by k, the largest first), or
    /// those of a store to a store of features
    Encode(Box<encode::EncodeArgs>),
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Info { sae } => info::info(context, sae),
        Command::Encode(args) => {
            // on as many threads as were asked for
            let processor = CpuBackend::new(context.global.threads)?;
            processor.pool().install(|| encode::encode(context, args))
        }
    }
}

fn bar(context: &Context, rows: usize) -> indicatif::ProgressBar {
    context.bar(rows as u64, "{bar:30} row {pos} of {len} {per_sec} {eta}")
}
