//! The activation store: what a model was thinking at each position of each clip, on disk.
//!
//! ```text
//! store.json                    what is stored and how it was made
//! index.jsonl                   one row a clip
//! <hook>/00000.safetensors      "resid" [rows, width]; rows of a clip are contiguous, in the order of the index
//! codes/00000.safetensors       "codes/<clip_id>" [codebooks, frames], U16 (I32 for codebooks above 65,536 codes)
//! run.json                      the run
//! SHA256SUMS                    hashes of all files above; written last, so a store without it is unfinished
//! journal.jsonl                 progress, only while unfinished
//! ```
//!
//! Row `row_start + s` of a clip is its position `s`, which lies at `(s - 1) / frame_rate` seconds of the clip. The
//! store knows nothing of how activations are computed.

mod export;
mod finish;
mod format;
mod info;
mod journal;
mod reader;
mod resume;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use export::{EXPORT_INDEX, Exported, export_npy, npy_header};
pub use format::{
    CODES_DIR, ClipRow, EngineMeta, FORMAT, Hook, INDEX_JSONL, InputsMeta, JOURNAL, RESID, SHA256SUMS,
    STORE_JSON, StoreDtype, StoreMeta, WindowsMeta, clip_id, codes_tensor, shard_name,
};
pub use info::{StoreInfo, info};
pub use reader::StoreReader;
pub use resume::{Opened, Resumed};
pub use verify::{StoreState, VerifyReport, verify};
pub use writer::{NewClip, SHARD_ROWS, ShardRule, StoreWriter};
