//! T5, MusicGen's text encoder.

pub mod config;
