//! What is written comes back: through this crate, through safetensors' own reader, and as `.npy`.

use super::*;
use crate::Category;

fn finished(dir: &Path, meta: StoreMeta) -> StoreReader {
    let Opened::Writer(writer, _) = StoreWriter::open(dir, meta, false).unwrap() else { panic!("finished") };
    write_rest(*writer, 0);
    StoreReader::open(dir).unwrap()
}

#[test]
fn every_type_comes_back() {
    for dtype in [StoreDtype::F32, StoreDtype::F16, StoreDtype::BF16] {
        let dir = tempfile::tempdir().unwrap();
        let meta = meta(dtype);
        let store = finished(dir.path(), meta.clone());
        assert_eq!(store.meta(), &meta);
        assert_eq!(store.clips().len(), FRAMES.len());
        for (clip, row) in store.clips().iter().enumerate() {
            for (hook, site) in meta.sites.iter().enumerate() {
                let expected = stored(&values(clip, hook, &meta), dtype);
                assert_eq!(
                    store.raw_rows(&site.hook, &row.clip_id).unwrap(),
                    expected,
                    "{dtype} clip {clip}"
                );
                let widened = store.rows(&site.site, &row.clip_id).unwrap();
                assert_eq!(stored(&widened, dtype), expected, "{dtype} clip {clip}, widened");
            }
            assert_eq!(store.codes(&row.clip_id).unwrap(), codes(clip, &meta));
        }
        assert!(verify(dir.path()).unwrap().is_sound());
    }
}

#[test]
fn rows_lie_where_the_index_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = finished(dir.path(), meta(StoreDtype::F32));
    let places: Vec<_> =
        store.clips().iter().map(|clip| (clip.shard, clip.row_start, clip.positions)).collect();
    // shards end with the clip that brings them to 10 rows or more
    let expected =
        [(0, 0, 4), (0, 4, 6), (1, 0, 2), (1, 2, 9), (2, 0, 3), (2, 3, 5), (2, 8, 12), (3, 0, 3), (3, 3, 4)];
    assert_eq!(places, expected);
    // the format's own reader
    let bytes = fs::read(dir.path().join("logits/00002.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let resid = tensors.tensor("resid").unwrap();
    assert_eq!((resid.dtype(), resid.shape()), (safetensors::Dtype::F32, [20, 7].as_slice()));
    assert_eq!(&resid.data()[8 * 28..20 * 28], stored(&values(6, 1, store.meta()), StoreDtype::F32));
    let bytes = fs::read(dir.path().join("codes/00002.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 3);
    let tensor = tensors.tensor(&codes_tensor("dir/track 2@0-1760")).unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::U16, [2, 11].as_slice()));
}

#[test]
fn large_codebooks_are_stored_as_i32() {
    let dir = tempfile::tempdir().unwrap();
    let meta = StoreMeta { codebook_size: 65_537, ..meta(StoreDtype::F32) };
    let store = finished(dir.path(), meta.clone());
    assert_eq!(meta.codes_dtype(), auscult_kernels::DType::I32);
    let row = &store.clips()[3];
    assert_eq!(store.codes(&row.clip_id).unwrap(), codes(3, &meta));
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn unknown_names_say_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = finished(dir.path(), meta(StoreDtype::F32));
    let error = store.rows("hook_layers.2", "x").unwrap_err().to_string();
    assert!(error.contains("no hook `hook_layers.2`, expected one of hook_layers.1, logits"), "{error}");
    let error = store.codes("nobody@0-1").unwrap_err().to_string();
    assert!(error.contains("no clip `nobody@0-1`"), "{error}");
}

#[test]
fn a_wrong_size_is_refused_by_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), false);
    let meta = writer.meta().clone();
    let rows: Vec<Vec<u8>> = (0..2).map(|hook| stored(&values(0, hook, &meta), meta.dtype)).collect();
    let good: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
    let features = all_sae_rows(0, &meta);
    let short: Vec<&[u8]> = vec![&rows[0], &rows[1][4..]];
    for (codes, rows, part) in [
        (codes(1, &meta), &good, "[codebooks, frames] of the codes"),
        (codes(0, &meta), &vec![good[0]], "hooks of clip"),
        (codes(0, &meta), &short, "bytes at `logits`"),
        (Codes::new(2, 3, vec![0, 1, 2, 3, 4, 17]).unwrap(), &good, "a code of clip"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(dir.path(), false);
        let error = writer.append(new_clip(0), &codes, rows, &features).unwrap_err();
        assert_eq!(error.category(), Category::Failed);
        assert!(error.to_string().contains(part), "{error}");
    }
    append(&mut writer, 0);
    let error = writer.append(new_clip(0), &codes(0, &meta), &good, &features).unwrap_err();
    assert!(error.to_string().contains("name of clip `dir/track 0@0-480` is taken"), "{error}");
}

#[test]
fn info_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), false);
    for clip in 0..5 {
        append(&mut writer, clip);
    }
    let halfway = info(dir.path()).unwrap();
    assert_eq!(
        (halfway.state, halfway.clips),
        (StoreState::Unfinished { clips: 4 }, 4),
        "the open shard is not safe"
    );
    writer.suspend().unwrap();
    let halfway = info(dir.path()).unwrap();
    assert_eq!((halfway.state, halfway.clips), (StoreState::Unfinished { clips: 5 }, 5), "now it is");
    let (writer, resumed) = open(dir.path(), true);
    write_rest(writer, resumed.clips);
    let whole = info(dir.path()).unwrap();
    let frames: usize = FRAMES.iter().sum();
    assert_eq!((whole.state, whole.clips, whole.tracks, whole.shards), (StoreState::Finished, 9, 3, 4));
    assert_eq!((whole.positions, whole.partial_clips), (frames + 9, 6));
    assert!((whole.audio_seconds - frames as f64 * 0.02).abs() < 1e-9);
    // 4 shards of 2 hooks, 2 autoencoders and the codes; what is known of features; store.json, index, run.json, sums
    assert_eq!(whole.files, 4 * 5 + 2 + 4);
    let bytes: u64 = tree_bytes(dir.path());
    assert_eq!(whole.bytes, bytes);
}

fn tree_bytes(dir: &Path) -> u64 {
    let files = super::super::verify::files_of(dir).unwrap();
    files.iter().map(|name| fs::metadata(dir.join(name)).unwrap().len()).sum()
}

#[test]
fn npy_files_hold_the_rows() {
    for (dtype, descr, name) in [
        (StoreDtype::F32, "<f4", "float32"),
        (StoreDtype::F16, "<f2", "float16"),
        (StoreDtype::BF16, "<f4", "float32"),
    ] {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = finished(dir.path(), meta(dtype));
        let mut calls = Vec::new();
        let exported = export_npy(&store, out.path(), |clips| calls.push(clips)).unwrap();
        assert_eq!((exported.clips, exported.files), (9, 9 * 6));
        assert_eq!(calls, (1..=9).collect::<Vec<_>>());
        let file = out.path().join("dir/track 1/800-1120/hook_layers.1.residual.npy");
        let bytes = fs::read(&file).unwrap();
        let header = npy_header(descr, &[3, 3]);
        assert_eq!(header.len() % 64, 0);
        assert_eq!(&bytes[..header.len()], header);
        let expected = match dtype {
            StoreDtype::F16 => stored(&values(4, 0, store.meta()), dtype),
            _ => stored(&store.rows("hook_layers.1", "dir/track 1@800-1120").unwrap(), StoreDtype::F32),
        };
        assert_eq!(&bytes[header.len()..], expected);
        let index = fs::read_to_string(out.path().join(EXPORT_INDEX)).unwrap();
        let row: serde_json::Value = serde_json::from_str(index.lines().nth(4).unwrap()).unwrap();
        assert_eq!(row["residual_paths"]["hook_layers.1"], "dir/track 1/800-1120/hook_layers.1.residual.npy");
        let values = "dir/track 1/800-1120/logits.many.values.npy";
        assert_eq!(row["feature_paths"]["many"][1], values);
        let bytes = fs::read(out.path().join(values)).unwrap();
        let features = store.features("many", "dir/track 1@800-1120").unwrap();
        assert_eq!(&bytes[bytes.len() - 3 * features.k * 4..], stored(&features.values, StoreDtype::F32));
        let bytes = fs::read(out.path().join("dir/track 1/800-1120/hook_layers.1.few.indices.npy")).unwrap();
        assert_eq!(&bytes[..128], npy_header("<u2", &[3, 2]));
        assert_eq!((&row["dtype"], &row["clip_id"]), (&name.into(), &"dir/track 1@800-1120".into()));
        let error = export_npy(&store, out.path(), |_| {}).unwrap_err();
        assert_eq!(error.category(), Category::Usage, "{error}");
    }
}
