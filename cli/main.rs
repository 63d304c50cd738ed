//! The `auscult` command line: flags, progress, exit codes. The only place that prints, and the only one that exits.

mod audio_file;
mod bench;
mod capture;
mod codec;
mod context;
mod demo;
mod doctor;
mod failure;
mod features;
mod generate;
mod model;
mod sae;
mod store;
mod text;

use clap::{Parser, Subcommand};
use context::{Context, Global};
use std::process::ExitCode;

/// Opens up MusicGen: activations of real music, sparse features, interventions.
#[derive(Parser)]
#[command(name = "auscult", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Render music, make a tiny random model, and capture its activations: the main job, with no downloads
    Demo(demo::Args),
    /// Show devices, limits, measured rates, and a self-test of every kernel
    Doctor(doctor::Args),
    /// Checkpoints: what one holds, a random one, conversion of audiocraft's
    #[command(subcommand)]
    Model(model::Command),
    /// Activations of audio at chosen sites, into a store
    Capture(Box<capture::Args>),
    /// Music: from nothing, from audio that it continues, with edits inside the loop
    Generate(Box<generate::Args>),
    /// Sparse autoencoders: what one is, and what rows of activations are in its features
    #[command(subcommand)]
    Sae(sae::Command),
    /// Features in a store: rates, maxima, the clips that show them, what they do in time
    #[command(subcommand)]
    Features(features::Command),
    /// Stores: look, check, export
    #[command(subcommand)]
    Store(store::Command),
    /// Time kernels on the device, against what it was measured to reach in the same run
    Bench(bench::Args),
    /// Audio to EnCodec codes and back
    #[command(subcommand)]
    Codec(codec::Command),
    /// Text to the states that a decoder reads
    #[command(subcommand)]
    T5(text::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::new(cli.global);
    let done = match cli.command {
        Command::Demo(args) => demo::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Model(command) => model::run(&context, &command),
        Command::Capture(args) => capture::run(&context, &args),
        Command::Generate(args) => generate::run(&context, &args),
        Command::Sae(command) => sae::run(&context, &command),
        Command::Features(command) => features::run(&context, &command),
        Command::Store(command) => store::run(&context, &command),
        Command::Bench(args) => bench::run(&context, &args),
        Command::Codec(command) => codec::run(&context, &command),
        Command::T5(command) => text::run(&context, &command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
