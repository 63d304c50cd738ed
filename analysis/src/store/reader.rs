//! Reading a finished store: rows and codes of a clip, from memory-mapped shards.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::sae::SparseRows;
use auscult_runtime::weights::{WeightView, Weights};
use half::{bf16, f16};

use super::features;
use super::format::{
    CODES_DIR, ClipRow, Hook, RESID, SHA256SUMS, SaeMeta, StoreDtype, StoreMeta, codes_tensor, read_index,
    sae_shard_name, shard_name,
};
use crate::error::{AnalysisError, Result};

/// A finished store. Shards are mapped when they are first read.
#[derive(Debug)]
pub struct StoreReader {
    dir: PathBuf,
    meta: StoreMeta,
    clips: Vec<ClipRow>,
    by_id: HashMap<String, usize>,
    /// The shards of each hook, then of the codes, then of each autoencoder.
    shards: Vec<Vec<OnceLock<Weights>>>,
}

impl StoreReader {
    /// Opens a store. Only `store.json` and the index are read; [`super::verify`] holds the files against their hashes.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] for a directory that is no store, is unfinished, or has a broken index.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let meta = StoreMeta::read(dir)?;
        if !dir.join(SHA256SUMS).exists() {
            let problem = format!("is unfinished: it has no `{SHA256SUMS}`; `capture --resume` finishes it");
            return Err(AnalysisError::store(dir, problem));
        }
        let clips = read_index(dir)?;
        let mut by_id = HashMap::with_capacity(clips.len());
        for (at, clip) in clips.iter().enumerate() {
            if by_id.insert(clip.clip_id.clone(), at).is_some() {
                return Err(AnalysisError::store(
                    dir,
                    format!("the index has clip `{}` twice", clip.clip_id),
                ));
            }
        }
        let count = clips.iter().map(|clip| clip.shard + 1).max().unwrap_or(0);
        if count > clips.len() {
            let problem = format!("the index names shard {}, expected fewer shards than clips", count - 1);
            return Err(AnalysisError::store(dir, problem));
        }
        let kinds = meta.sites.len() + 1 + meta.saes.len();
        let shards = (0..kinds).map(|_| (0..count).map(|_| OnceLock::new()).collect()).collect();
        Ok(Self { dir: dir.to_path_buf(), meta, clips, by_id, shards })
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the store holds and how it was made.
    pub fn meta(&self) -> &StoreMeta {
        &self.meta
    }

    /// The clips, in order.
    pub fn clips(&self) -> &[ClipRow] {
        &self.clips
    }

    /// The clip of a name.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] if there is none.
    pub fn clip(&self, clip_id: &str) -> Result<&ClipRow> {
        let at = self.by_id.get(clip_id).ok_or_else(|| self.bad(format!("has no clip `{clip_id}`")))?;
        Ok(&self.clips[*at])
    }

    /// The hook of a name: of its directory, or of the site itself.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] if there is none; the hooks there are stand in the message.
    pub fn hook(&self, name: &str) -> Result<&Hook> {
        self.meta.sites.iter().find(|site| site.hook == name || site.site == name).ok_or_else(|| {
            let there: Vec<&str> = self.meta.sites.iter().map(|site| site.hook.as_str()).collect();
            self.bad(format!("has no hook `{name}`, expected one of {}", there.join(", ")))
        })
    }

    fn bad(&self, problem: String) -> AnalysisError {
        AnalysisError::store(&self.dir, problem)
    }

    /// The autoencoder of a name.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] if there is none; the names there are stand in the message.
    pub fn sae(&self, name: &str) -> Result<&SaeMeta> {
        self.meta.saes.iter().find(|sae| sae.name == name).ok_or_else(|| {
            let there: Vec<&str> = self.meta.saes.iter().map(|sae| sae.name.as_str()).collect();
            self.bad(match there.is_empty() {
                true => format!("has no features of autoencoders, those of `{name}` were expected"),
                false => format!("has no autoencoder `{name}`, expected one of {}", there.join(", ")),
            })
        })
    }

    /// A shard of a kind, as `shards` counts them, that lies in `file`.
    fn shard(&self, kind: usize, file: &str, shard: usize) -> Result<&Weights> {
        let slot = self.shards[kind].get(shard).ok_or_else(|| self.bad(format!("has no shard `{file}`")))?;
        if slot.get().is_none() {
            let weights = Weights::open(self.dir.join(file))?;
            // another thread may have been first; its map is as good
            let _ = slot.set(weights);
        }
        Ok(slot.get().expect("set above, by this thread or another"))
    }

    /// Rows of a clip at a hook as they are stored: little-endian [positions, width] in the store's type.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] for an unknown clip or hook, a shard that is not of the size the index says, or a store of
    /// features alone; [`AnalysisError::Weights`] for a shard that cannot be read.
    pub fn raw_rows(&self, hook: &str, clip_id: &str) -> Result<&[u8]> {
        let name = &self.hook(hook)?.hook;
        let at = self.meta.sites.iter().position(|site| site.hook == *name).expect("`hook` found it");
        let (site, clip) = (&self.meta.sites[at], self.clip(clip_id)?);
        if self.meta.sae_only {
            return Err(self.bad(format!("holds features alone, rows of `{name}` were expected")));
        }
        let file = shard_name(name, clip.shard);
        let tensor = self
            .shard(at, &file, clip.shard)?
            .get(RESID)
            .ok_or_else(|| self.bad(format!("`{file}` lacks `{RESID}`")))?;
        let shape = |rows| format!("{} [{rows}, {}]", self.meta.dtype.dtype(), site.width);
        let end = clip.row_start.checked_add(clip.positions);
        match (tensor.shape, end) {
            (&[rows, width], Some(end))
                if end <= rows && width == site.width && tensor.dtype == self.meta.dtype.dtype() =>
            {
                let row = site.width * self.meta.dtype.size();
                Ok(&tensor.bytes[clip.row_start * row..end * row])
            }
            _ => {
                let found = format!("`{RESID}` in `{file}` is {} {:?}", tensor.dtype, tensor.shape);
                Err(self.bad(format!(
                    "{found}, expected {} or more rows",
                    shape(clip.row_start + clip.positions)
                )))
            }
        }
    }

    /// Rows of a clip at a hook as f32, [positions, width]; exact for every stored type.
    ///
    /// # Errors
    /// As [`raw_rows`](Self::raw_rows).
    pub fn rows(&self, hook: &str, clip_id: &str) -> Result<Vec<f32>> {
        Ok(widen(self.raw_rows(hook, clip_id)?, self.meta.dtype))
    }

    /// The active features of a clip's positions, as the autoencoder of that name has them.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] for an unknown clip or autoencoder, or a shard that is not of the size the index says;
    /// [`AnalysisError::Weights`] for one that cannot be read.
    pub fn features(&self, sae: &str, clip_id: &str) -> Result<SparseRows> {
        let (sae, clip) = (self.sae(sae)?, self.clip(clip_id)?);
        let at = self.meta.saes.iter().position(|other| other == sae).expect("`sae` found it");
        let file = sae_shard_name(sae, clip.shard);
        let weights = self.shard(self.meta.sites.len() + 1 + at, &file, clip.shard)?;
        features::read(weights, sae, clip.row_start, clip.positions)
            .map_err(|problem| self.bad(format!("`{file}` {problem}")))
    }

    /// Codes of a clip.
    ///
    /// # Errors
    /// As [`raw_rows`](Self::raw_rows).
    pub fn codes(&self, clip_id: &str) -> Result<Codes> {
        let clip = self.clip(clip_id)?;
        let name = codes_tensor(clip_id);
        let file = shard_name(CODES_DIR, clip.shard);
        let tensor = self
            .shard(self.meta.sites.len(), &file, clip.shard)?
            .get(&name)
            .ok_or_else(|| self.bad(format!("`{file}` lacks `{name}`")))?;
        let values = code_values(&tensor)
            .filter(|_| *tensor.shape == [self.meta.codebooks, clip.frames])
            .ok_or_else(|| {
                let found = format!("`{name}` in `{file}` is {} {:?}", tensor.dtype, tensor.shape);
                self.bad(format!("{found}, expected codes [{}, {}]", self.meta.codebooks, clip.frames))
            })?;
        Ok(Codes::new(self.meta.codebooks, clip.frames, values)?)
    }
}

/// Codes of either stored type; none for another type or a negative number.
pub(super) fn code_values(tensor: &WeightView<'_>) -> Option<Vec<u32>> {
    match tensor.dtype {
        DType::U16 => {
            let (codes, _) = tensor.bytes.as_chunks();
            Some(codes.iter().map(|&code| u32::from(u16::from_le_bytes(code))).collect())
        }
        DType::I32 => {
            let (codes, _) = tensor.bytes.as_chunks();
            codes.iter().map(|&code| u32::try_from(i32::from_le_bytes(code)).ok()).collect()
        }
        _ => None,
    }
}

/// Little-endian values as f32.
fn widen(bytes: &[u8], dtype: StoreDtype) -> Vec<f32> {
    match dtype {
        StoreDtype::F32 => bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect(),
        StoreDtype::F16 => {
            bytes.as_chunks().0.iter().map(|&value| f16::from_le_bytes(value).to_f32()).collect()
        }
        StoreDtype::BF16 => {
            bytes.as_chunks().0.iter().map(|&value| bf16::from_le_bytes(value).to_f32()).collect()
        }
    }
}
