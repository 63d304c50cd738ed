//! A store as `.npy` files, for programs that read nothing else.
//!
//! Each clip and hook becomes `<track_id>/<hook>.residual.npy`, or where a track has several clips
//! `<track_id>/<first sample>-<one past the last>/<hook>.residual.npy`: one array [positions, width]. BF16, which NumPy
//! has no name for, is widened to f32, which is exact; F32 and F16 keep their bits. `activation_index.jsonl` has a row
//! for each clip: its row of the store's index, `sample_rate`, `model`, `shape`, `dtype` and `residual_paths` by hook.
//! Features of an autoencoder become `<hook>.<sae>.indices.npy` and `<hook>.<sae>.values.npy` beside them, [positions, k],
//! listed as `feature_paths` by autoencoder.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Component, Path};

use auscult_runtime::files::{FileError, atomic_write, atomic_write_bytes};
use serde::Serialize;
use serde_json::{Value, json};

use super::format::{ClipRow, StoreDtype, narrowed};
use super::reader::StoreReader;
use crate::error::{AnalysisError, Result};

/// The index of an export.
pub const EXPORT_INDEX: &str = "activation_index.jsonl";

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Clips.
    pub clips: usize,
    /// Files, the index not counted.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// NumPy's header of format 1.0 for a C-ordered array, byte for byte (`numpy.lib.format.write_array_header_1_0`): room
/// for the first extent to grow to 21 digits, then padding so that the data begins at a multiple of 64. `descr` is
/// NumPy's name of the type, such as `<f4`.
pub fn npy_header(descr: &str, shape: &[usize]) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    const GROWTH_DIGITS: usize = 21;
    const ALIGN: usize = 64;
    let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
    let tuple = match extents.as_slice() {
        // a tuple of one keeps its comma
        [one] => format!("({one},)"),
        many => format!("({})", many.join(", ")),
    };
    let growth = extents.first().map_or(0, |first| GROWTH_DIGITS.saturating_sub(first.len()));
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}{:growth$}", "");
    let fixed = MAGIC.len() + size_of::<u16>();
    let unpadded = fixed + dict.len() + 1;
    let length = unpadded + (ALIGN - unpadded % ALIGN) - fixed;
    let mut header = MAGIC.to_vec();
    header.extend(u16::try_from(length).expect("a header of a few extents is short").to_le_bytes());
    header.extend(dict.as_bytes());
    header.resize(fixed + length - 1, b' ');
    header.push(b'\n');
    header
}

/// The directory of a clip within the export.
fn directory(dir: &Path, clip: &ClipRow, several: bool) -> Result<String> {
    let track = &clip.track_id;
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if track.is_empty()
        || !Path::new(track).components().all(plain)
        || track.split('/').any(|part| part.is_empty() || part == ".")
    {
        return Err(AnalysisError::store(
            dir,
            format!("track `{track}` cannot name a directory of the export"),
        ));
    }
    if !several {
        return Ok(track.clone());
    }
    let (_, range) = clip
        .clip_id
        .rsplit_once('@')
        .filter(|(_, range)| range.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
        .ok_or_else(|| {
            AnalysisError::store(
                dir,
                format!("clip `{}` does not end in `@` and a range of samples", clip.clip_id),
            )
        })?;
    Ok(format!("{track}/{range}"))
}

/// Writes every clip and hook of a store as `.npy` into `out`, which must be absent or empty, and the index last.
/// `on_clip` is called with the number of clips done.
///
/// # Errors
/// [`AnalysisError::NotEmpty`], [`AnalysisError::File`], [`AnalysisError::Store`] for a damaged store.
pub fn export_npy(
    store: &StoreReader,
    out: impl AsRef<Path>,
    mut on_clip: impl FnMut(usize),
) -> Result<Exported> {
    let out = out.as_ref();
    let create =
        |path: &Path| fs::create_dir_all(path).map_err(|e| FileError::io(path, "create directory", e));
    create(out)?;
    let mut entries = fs::read_dir(out).map_err(|e| FileError::io(out, "list", e))?;
    if let Some(entry) = entries.next() {
        let entry = entry.map_err(|e| FileError::io(out, "list", e))?;
        let holds = entry.file_name().to_string_lossy().into_owned();
        return Err(AnalysisError::NotEmpty { dir: out.to_path_buf(), holds });
    }
    let meta = store.meta();
    let mut per_track: HashMap<&str, usize> = HashMap::new();
    for clip in store.clips() {
        *per_track.entry(&clip.track_id).or_default() += 1;
    }
    let dtype = match meta.dtype {
        StoreDtype::F16 => "float16",
        StoreDtype::F32 | StoreDtype::BF16 => "float32",
    };
    let mut exported = Exported::default();
    let mut index = Vec::new();
    for clip in store.clips() {
        let within = directory(store.dir(), clip, per_track[clip.track_id.as_str()] > 1)?;
        create(&out.join(&within))?;
        let mut paths = BTreeMap::new();
        let sites = if meta.sae_only { &[] } else { meta.sites.as_slice() };
        for site in sites {
            let name = format!("{within}/{}.residual.npy", site.hook);
            let shape = [clip.positions, site.width];
            exported.bytes += match meta.dtype {
                StoreDtype::F32 => {
                    write_npy(&out.join(&name), "<f4", &shape, store.raw_rows(&site.hook, &clip.clip_id)?)?
                }
                StoreDtype::F16 => {
                    write_npy(&out.join(&name), "<f2", &shape, store.raw_rows(&site.hook, &clip.clip_id)?)?
                }
                StoreDtype::BF16 => {
                    let rows = store.rows(&site.hook, &clip.clip_id)?;
                    let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
                    write_npy(&out.join(&name), "<f4", &shape, &bytes)?
                }
            };
            exported.files += 1;
            paths.insert(site.hook.as_str(), name);
        }
        let mut feature_paths = BTreeMap::new();
        for sae in &meta.saes {
            let names =
                ["indices", "values"].map(|part| format!("{within}/{}.{}.{part}.npy", sae.hook, sae.name));
            let features = store.features(&sae.name, &clip.clip_id)?;
            let shape = [clip.positions, features.k];
            let dtype = sae.index_dtype();
            let indices = narrowed(&features.indices, dtype);
            let values: Vec<u8> = features.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            exported.bytes +=
                write_npy(&out.join(&names[0]), &format!("<u{}", dtype.size()), &shape, &indices)?;
            exported.bytes += write_npy(&out.join(&names[1]), "<f4", &shape, &values)?;
            exported.files += 2;
            feature_paths.insert(sae.name.as_str(), names);
        }
        exported.clips += 1;
        let mut row = serde_json::to_value(clip).expect("index rows have string keys and finite numbers");
        let fields = row.as_object_mut().expect("a struct is an object");
        let model = json!({
            "model_name": meta.model, "device": meta.engine.device, "precision": meta.engine.precision,
        });
        let extra = [
            ("sample_rate", json!(meta.sample_rate)),
            ("model", model),
            ("dtype", Value::from(dtype)),
            ("residual_paths", json!(paths)),
        ];
        fields.extend(extra.map(|(key, value)| (key.to_string(), value)));
        if !feature_paths.is_empty() {
            fields.insert("feature_paths".to_string(), json!(feature_paths));
        }
        serde_json::to_writer(&mut index, &row).expect("values serialise");
        index.push(b'\n');
        on_clip(exported.clips);
    }
    atomic_write_bytes(out.join(EXPORT_INDEX), &index)?;
    Ok(exported)
}

fn write_npy(path: &Path, descr: &str, shape: &[usize], data: &[u8]) -> Result<u64, FileError> {
    let header = npy_header(descr, shape);
    atomic_write(path, |out| {
        out.write_all(&header)?;
        out.write_all(data)
    })?;
    Ok(u64::try_from(header.len() + data.len()).expect("a file's length fits 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use auscult_runtime::files::sha256_bytes;

    #[test]
    fn headers_are_numpys() {
        // hashes of what NumPy 2.4.6 writes: write_array_header_1_0(f, {"descr": .., "fortran_order": False, "shape": ..})
        for (descr, shape, length, sha256) in [
            (
                "<f4",
                &[501, 1024][..],
                128,
                "f309daa5db2dfb4a19c19ae4b2923c0916f5eb60add70a67f37c892639680232",
            ),
            ("<f2", &[2, 7][..], 128, "ed1830d54930869a635563007e83fd1a9c625736d3d4d6711393598ad5a07aee"),
            ("<f4", &[1][..], 128, "0d5d33d4466c8c3868d18b6022200709566128ffba84106aea39f3b5b1e0a8e6"),
            ("<f2", &[][..], 128, "0e27edfa942705646e52e834a228957aaed3bf789ac99b3068e5709584c6ecc1"),
            (
                "<f4",
                &[1234567, 128, 3][..],
                128,
                "866f84807a22e800846f0a4ec1ee2c95f52df4446f1083d0153534531c9a755a",
            ),
            ("<f4", &[12, 3][..], 128, "f05565345c0395b96ab722266629c9d71e3bbc8dea117a554771de61af5a3dc7"),
            (
                "<f4",
                &[1501, 98304][..],
                128,
                "2941f12ef8e1ff583d6781f3f9161ee80f69839664640d3315191cd93e52ca4f",
            ),
        ] {
            let header = npy_header(descr, shape);
            assert_eq!(header.len(), length, "{descr} {shape:?}");
            assert_eq!(sha256_bytes(&header), sha256, "{descr} {shape:?}");
        }
    }
}
