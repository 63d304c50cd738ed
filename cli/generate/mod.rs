//! `auscult generate`: music out, with edits inside the loop.

mod activity;
mod args;
mod draws;
mod edits;
mod live;
mod maxima;
mod melody;
mod memory;
mod output;
mod plan;
mod progress;
mod prompt;
mod run;
mod saes;
mod store;
mod text;
mod variants;
mod vectors;

pub use args::Args;
pub use run::run;
