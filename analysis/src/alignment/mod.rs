//! Where an autoencoder was trained, asked of its arithmetic and not of its name.
//!
//! An autoencoder reconstructs the rows of the site it was trained at better than those of any other. [`Aligner`] scores one
//! against the stream before and behind every layer, by [FVU](crate::sae_stats::Fit::fvu) and by what its
//! reconstruction costs the model; [`judge`] holds the result against what its file says; [`first_look`] is the short form that
//! decides on one pass over a few clips.

mod cost;
mod look;
mod score;
mod verdict;

pub use cost::{CodeCost, code_cost};
pub use look::{Look, first_look};
pub use score::{Aligner, Batches, SiteScore, SiteSums, candidates};
pub use verdict::{Declared, NO_FIT, Verdict, judge, label};
