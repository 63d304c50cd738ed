//! The index of a sharded checkpoint: `weight_map` says which file holds which tensor.

use super::error::{Problem, WeightsError};
use super::json::Entries;
use crate::files::{FileError, open_regular};
use crate::safetensors_io::MAX_HEADER;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};

/// Shard file, relative to the index, to the tensors it must hold.
pub(super) type Shards = BTreeMap<String, Vec<String>>;

/// Reads an index. Shard names are checked to stay below the index's directory; whether they exist is not.
pub(super) fn read(path: &Path) -> Result<Shards, WeightsError> {
    let (file, length) = open_regular(path)?;
    let limit = u64::try_from(MAX_HEADER).expect("100 MB fits 64 bits");
    if length > limit {
        let found = format!("an index of {length} bytes");
        return Err(Problem::file(found, format!("at most {limit}")).at(path));
    }
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text).map_err(|e| FileError::io(path, "read", e))?;
    parse(&text).map_err(|problem| problem.at(path))
}

fn parse(text: &[u8]) -> Result<Shards, Problem> {
    let expected = "a JSON object with `weight_map`, an object of file names by tensor";
    let invalid = |e: serde_json::Error| Problem::file(format!("an invalid index: {e}"), expected);
    let Entries(root) =
        serde_json::from_slice::<Entries<Box<serde_json::value::RawValue>>>(text).map_err(invalid)?;
    let Some((_, map)) = root.into_iter().find(|(key, _)| key == "weight_map") else {
        return Err(Problem::file("no `weight_map`", expected));
    };
    let Entries(map) = serde_json::from_str::<Entries<String>>(map.get()).map_err(invalid)?;
    if map.is_empty() {
        return Err(Problem::file("an empty `weight_map`", "at least one tensor"));
    }
    let mut shards = Shards::new();
    for (tensor, shard) in map {
        if !is_below(&shard) {
            let expected = "a path of a `.safetensors` file below the index's directory";
            return Err(Problem::tensor(&tensor, format!("shard `{shard}`"), expected));
        }
        shards.entry(shard).or_default().push(tensor);
    }
    Ok(shards)
}

/// Plain names only: no root, no drive, no `..`, on any system; and only safetensors files.
fn is_below(shard: &str) -> bool {
    shard.ends_with(".safetensors")
        && !shard.contains(['\\', ':', '\0'])
        && Path::new(shard).components().all(|part| matches!(part, Component::Normal(_)))
}
