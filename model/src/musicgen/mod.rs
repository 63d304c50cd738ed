//! MusicGen's decoder: codes in, activations out.

pub mod config;
mod decoder;
pub mod generate;
mod graph;
mod positions;
mod sites;
mod weights;

pub use decoder::{Activations, Decoder, DecoderOptions, Precision, TeacherForced};
pub use positions::Posemb;
pub use sites::{At, NamedSite, Site, parse_sites};
