//! MusicGen's decoder: codes in, activations out.

mod columns;
pub mod config;
mod cross_entropy;
mod decoder;
pub mod generate;
mod graph;
mod parts;
mod positions;
mod prefix;
mod sites;
mod splice;
mod teacher_forced;
mod weights;

pub use columns::ColumnPass;
pub use cross_entropy::CrossEntropy;
pub use decoder::{Activations, Decoder, DecoderOptions, Precision};
pub use positions::Posemb;
pub use sites::{At, NamedSite, Site, parse_sites};
pub use splice::Spliced;
pub use teacher_forced::TeacherForced;
