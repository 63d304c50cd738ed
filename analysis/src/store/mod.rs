//! The activation store: what a model was thinking at each position of each clip, on disk.
//!
//! ```text
//! store.json                    what is stored and how it was made
//! index.jsonl                   one row a clip
//! <hook>/00000.safetensors      "resid" [rows, width]; rows of a clip are contiguous, in the order of the index
//! <hook>/00000.<sae>.safetensors  "indices" [rows, k], U16 (U32 beyond 65,536 features), and "values" [rows, k], F32: the
//!                               active features of the same rows, the largest first; index 0, value 0 behind them
//! <hook>/<sae>.stats.safetensors  "count", "mean", "max", "max_clip", "max_position" [features]
//! codes/00000.safetensors       "codes/<clip_id>" [codebooks, frames], U16 (I32 for codebooks above 65,536 codes)
//! run.json                      the run
//! SHA256SUMS                    hashes of all files above; written last, so a store without it is unfinished
//! journal.jsonl                 progress, only while unfinished
//! ```
//!
//! Row `row_start + s` of a clip is its position `s`, which lies at `(s - 1) / frame_rate` seconds of the clip. The
//! store knows nothing of how activations are computed. A store of features alone (`sae_only`) has no `resid`.
//!
//! A store of features is written as any other: [`StoreMeta::saes`] lists the autoencoders, and [`StoreWriter::append`]
//! takes a [`SaeRows`] of each. One made of another store's activations takes its index over: for each of
//! [`StoreReader::clips`] a [`NewClip`] with that row (the writer fills in shard and first row), its
//! [`StoreReader::codes`], no rows, and a [`SaeRows`] of `Sae::encode` with `Fit::of(rows, Sae::reconstruct(..))`, under
//! a copy of [`StoreReader::meta`] with `saes` and `sae_only` set.

mod entry;
mod export;
mod features;
mod finish;
mod fit;
mod format;
mod info;
mod reader;
mod resume;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use crate::sae_stats::Fit;
pub use export::{EXPORT_INDEX, Exported, export_npy, npy_header};
pub use features::{INDICES, SaeRows, VALUES};
pub use fit::SaeSummary;
pub use format::{
    CODES_DIR, ClipRow, EngineMeta, FORMAT, Hook, INDEX_JSONL, InputsMeta, JOURNAL, RESID, SHA256SUMS,
    STORE_JSON, SaeMeta, StoreDtype, StoreMeta, WindowsMeta, clip_id, codes_tensor, index_dtype, is_sae_name,
    narrowed, sae_names, sae_shard_name, sae_stats_name, shard_name,
};
pub use info::{StoreInfo, info};
pub use reader::StoreReader;
pub use resume::{Opened, Resumed};
pub use verify::{StoreState, VerifyReport, verify};
pub use writer::{NewClip, SHARD_ROWS, ShardRule, StoreWriter};
