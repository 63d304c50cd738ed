//! MusicGen and EnCodec on any backend of [`auscult_runtime`]: checkpoints, graphs, and the sites that can be watched or
//! changed.
//!
//! [`encodec::Encodec`] turns audio into [`Codes`] and back; [`musicgen::Decoder`] turns codes into activations. [`init`]
//! writes random checkpoints, [`convert`] turns pickled ones into safetensors without running what they hold. This crate
//! knows no flag, no output layout and no audio file.

mod batch;
mod codes;
pub mod config;
pub mod convert;
mod device;
pub mod encodec;
mod error;
pub mod init;
pub mod inspect;
pub mod layout;
pub mod musicgen;
mod output;
mod procedural;
mod programs;
pub mod sae;
pub mod t5;

pub use batch::largest_batch;
pub use codes::Codes;
pub use error::{ModelError, Result};
