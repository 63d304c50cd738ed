//! MusicGen's decoder: codes in, activations out.

pub mod config;
mod decoder;
pub mod generate;
mod graph;
mod positions;
mod prefix;
mod sites;
mod teacher_forced;
mod weights;

pub use decoder::{Activations, Decoder, DecoderOptions, Precision};
pub use positions::Posemb;
pub use sites::{At, NamedSite, Site, parse_sites};
pub use teacher_forced::TeacherForced;
