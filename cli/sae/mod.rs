//! `auscult sae`: look at an autoencoder, encode activations, train.

mod encode;
mod info;
mod train;

use crate::context::Context;
use anyhow::Result;
use auscult_runtime::CpuBackend;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Shapes, architecture, hook, lengths of the decoder's directions, sparsity
    Info {
        /// A directory that SAELens or sparsify wrote
        sae: PathBuf,
    },
    /// Encode activations, on the processor, to a safetensors file: `indices` and `values` [rows, k], the largest first
    Encode(Box<encode::EncodeArgs>),
    /// Train autoencoders on rows of a file, of a store, or of audio as the model hears it; written in SAELens' format
    Train(Box<train::TrainArgs>),
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Info { sae } => info::info(context, sae),
        Command::Encode(args) => {
            // on as many threads as were asked for
            let processor = CpuBackend::new(context.global.threads)?;
            processor.pool().install(|| encode::encode(context, args))
        }
        Command::Train(args) => {
            // what runs on no device runs on as many threads as were asked for
            let processor = CpuBackend::new(context.global.threads)?;
            processor.pool().install(|| train::train(context, args))
        }
    }
}

fn bar(context: &Context, rows: usize) -> indicatif::ProgressBar {
    context.bar(rows as u64, "{bar:30} row {pos} of {len} {per_sec} {eta}")
}
