//! MusicGen and EnCodec graphs, their weights and sites
