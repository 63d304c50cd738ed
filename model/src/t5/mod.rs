//! T5, MusicGen's text encoder: text to tokens ([`Tokenizer`]), tokens to states ([`T5Encoder`]), states to the decoder's
//! width ([`TextProjection`]); all three of a checkpoint are a [`TextEncoder`]. f32 on every device: T5's activations leave the range of f16, and it takes next to no time.

mod buckets;
pub mod config;
mod encoder;
mod graph;
mod projection;
mod sites;
mod spiece;
mod states;
mod text;
mod tokenizer;
pub(crate) mod vocabulary;
mod weights;

pub use encoder::T5Encoder;
pub use projection::TextProjection;
pub use sites::TextSite;
pub use states::TextStates;
pub use text::{EncodedText, TextEncoder, TextPad};
pub use tokenizer::Tokenizer;
