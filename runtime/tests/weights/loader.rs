//! The account between a model and its checkpoint.

use crate::common::{dir, le, noise, packed, put};
use auscult_runtime::weights::{Account, Loader, Weights, WeightsError};
use tempfile::TempDir;

/// Two layers, a tied weight under two names, an integer buffer and a type no kernel reads.
fn checkpoint() -> (TempDir, Weights) {
    let (six, four) = (le(&noise(1, 6)), le(&noise(2, 4)));
    let tensors: [(&str, &str, &[usize], &[u8]); 7] = [
        ("decoder.layers.0.fc1.weight", "F32", &[2, 3], &six),
        ("decoder.layers.1.fc1.weight", "BF16", &[2, 4], &four),
        ("decoder.norm.bias", "F16", &[3], &six[..6]),
        ("shared.weight", "F32", &[4], &four),
        ("encoder.embed_tokens.weight", "F32", &[4], &four),
        ("quantizer.inited", "I64", &[1], &[1; 8]),
        ("quantizer.scale", "F64", &[1], &[1; 8]),
    ];
    let dir = dir();
    let path = put(dir.path(), "model.safetensors", &packed(&tensors));
    let weights = Weights::open(path).unwrap();
    (dir, weights)
}

fn account(loader: &Loader) -> Account {
    match loader.finish() {
        Err(WeightsError::Account(account)) => *account,
        other => panic!("expected an account, got {other:?}"),
    }
}

/// Takes everything there is, as a model would that knows this checkpoint.
fn take_all(loader: &Loader) {
    let decoder = loader.prefix("decoder.");
    for (layer, width) in [(0, 3), (1, 4)] {
        let fc1 = decoder.prefix(&format!("layers.{layer}.")).take("fc1.weight", &[2, width]).unwrap();
        assert_eq!(fc1.name, format!("decoder.layers.{layer}.fc1.weight"));
    }
    assert_eq!(decoder.optional("norm.bias", &[3]).unwrap().elements(), 3);
    let shared =
        loader.take_any(&["absent.weight", "shared.weight", "encoder.embed_tokens.weight"], &[4]).unwrap();
    assert_eq!(shared.name, "shared.weight");
    loader.prefix("quantizer.").ignore(|name| name == "inited" || name == "scale");
}

#[test]
fn a_checkpoint_that_fits() {
    let (_dir, weights) = checkpoint();
    let loader = Loader::new(&weights);
    take_all(&loader);
    assert!(loader.optional("decoder.norm.weight", &[3]).is_none(), "absent and optional");
    loader.finish().unwrap();
    // tied weights: taken twice
    assert!(loader.take("shared.weight", &[4]).is_some());
    loader.finish().unwrap();
    assert!(loader.contains("quantizer.scale") && !loader.contains("scale"));
    assert!(loader.prefix("quantizer.").contains("scale"));
}

#[test]
fn everything_wrong_is_told_at_once() {
    let (_dir, weights) = checkpoint();
    let loader = Loader::new(&weights);
    let decoder = loader.prefix("decoder.");
    assert!(
        decoder.take("layers.0.fc1.weight", &[3, 2]).is_none(),
        "transposed: equal size is not equal shape"
    );
    assert!(decoder.take("layers.2.fc1.weight", &[2, 5]).is_none());
    assert!(decoder.optional("norm.bias", &[1, 3]).is_none(), "another rank");
    assert!(loader.take_any(&["v.0", "v.1"], &[7]).is_none());
    assert!(loader.take("quantizer.inited", &[1]).is_none());
    assert!(loader.take("quantizer.scale", &[1]).is_none());
    loader.ignore(|name| name == "shared.weight");
    let want = Account {
        file: weights.path().to_path_buf(),
        missing: vec!["decoder.layers.2.fc1.weight [2, 5]".into(), "v.0 | v.1 [7]".into()],
        misshapen: vec![
            "decoder.layers.0.fc1.weight [2, 3] (expected [3, 2])".into(),
            "decoder.norm.bias [3] (expected [1, 3])".into(),
        ],
        mistyped: vec![
            "quantizer.inited I64 (expected F32, F16 or BF16)".into(),
            "quantizer.scale F64 (expected F32, F16 or BF16)".into(),
        ],
        conflicting: vec![],
        unexpected: vec![
            "decoder.layers.1.fc1.weight [2, 4]".into(),
            "encoder.embed_tokens.weight [4]".into(),
        ],
    };
    assert_eq!(account(&loader), want);
    let text = format!(
        "weights: {} lacks 2 tensors: decoder.layers.2.fc1.weight [2, 5], v.0 | v.1 [7]; \
         has 2 misshapen: decoder.layers.0.fc1.weight [2, 3] (expected [3, 2]), decoder.norm.bias [3] (expected [1, 3]); \
         has 2 of a wrong type: quantizer.inited I64 (expected F32, F16 or BF16), quantizer.scale F64 (expected F32, F16 or BF16); \
         has 2 unexpected: decoder.layers.1.fc1.weight [2, 4], encoder.embed_tokens.weight [4]",
        weights.path().display()
    );
    assert_eq!(loader.finish().unwrap_err().to_string(), text);
}

#[test]
fn long_lists_are_cut_after_eight() {
    let (_dir, weights) = checkpoint();
    let loader = Loader::new(&weights);
    take_all(&loader);
    for layer in 0..8 {
        loader.take(&format!("lack.{layer}"), &[1]);
    }
    let file = weights.path().display();
    let eight = (0..8).map(|i| format!("lack.{i} [1]")).collect::<Vec<_>>().join(", ");
    assert_eq!(loader.finish().unwrap_err().to_string(), format!("weights: {file} lacks 8 tensors: {eight}"));
    loader.take("lack.8", &[]);
    let text = format!("weights: {file} lacks 9 tensors: {eight} and 1 more");
    assert_eq!(loader.finish().unwrap_err().to_string(), text);
}

#[test]
fn one_tensor_is_not_plural() {
    let (_dir, weights) = checkpoint();
    let loader = Loader::new(&weights);
    take_all(&loader);
    loader.take("bias", &[3]);
    let text = format!("weights: {} lacks 1 tensor: bias [3]", weights.path().display());
    assert_eq!(loader.finish().unwrap_err().to_string(), text);
}

/// The codec can be loaded from a whole model's file: only its own names are judged.
#[test]
fn a_scope_judges_its_own_names() {
    let (_dir, weights) = checkpoint();
    let loader = Loader::new(&weights);
    let decoder = loader.prefix("decoder.");
    decoder.take("layers.0.fc1.weight", &[2, 3]).unwrap();
    loader.take("absent", &[1]);
    assert_eq!(account(&decoder).missing, [""; 0]);
    assert_eq!(account(&decoder).unexpected, ["decoder.layers.1.fc1.weight [2, 4]", "decoder.norm.bias [3]"]);
    decoder.ignore(|name| name.starts_with("layers.1.") || name == "norm.bias");
    decoder.finish().unwrap();
    assert_eq!(account(&loader).missing, ["absent [1]"]);
    assert_eq!(account(&loader).unexpected.len(), 4);
}

#[test]
fn two_names_of_one_weight_must_agree() {
    let dir = dir();
    let (a, b) = (le(&noise(1, 4)), le(&noise(2, 4)));
    let tensors: [(&str, &str, &[usize], &[u8]); 3] =
        [("a", "F32", &[4], &a), ("b", "F32", &[4], &b), ("wide", "F32", &[2, 2], &a)];
    let path = put(dir.path(), "model.safetensors", &packed(&tensors));
    let weights = Weights::open(path).unwrap();
    let loader = Loader::new(&weights);
    assert_eq!(
        loader.take_any(&["b", "a", "wide"], &[4]).unwrap().name,
        "b",
        "the first named, not the first stored"
    );
    let account = account(&loader);
    assert_eq!(account.conflicting, ["b and a"]);
    assert_eq!(account.misshapen, ["wide [2, 2] (expected [4])"]);
    assert_eq!(account.unexpected, [""; 0]);
}
