//! `auscult generate`: music out, with edits inside the loop.

mod args;
mod memory;
mod output;
mod prompt;
mod run;

pub use args::Args;
pub use run::run;
