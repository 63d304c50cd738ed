//! Accounting between a model and its checkpoint: every tensor the model wants must be there, every tensor that is
//! there must be wanted, and all that is wrong is told at once.

use super::error::WeightsError;
use super::view::WeightView;
use super::{Tensor, Weights};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

/// How many tensors of each kind a message lists.
const LISTED: usize = 8;

/// What a checkpoint lacks and has too much, for one error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The checkpoint: its single file, or its index.
    pub file: PathBuf,
    /// Wanted and absent, as `name [shape]`; alternative names are joined by ` | `.
    pub missing: Vec<String>,
    /// Of another shape, as `name [found] (expected [wanted])`.
    pub misshapen: Vec<String>,
    /// Not floating point, as `name TYPE (expected F32, F16 or BF16)`.
    pub mistyped: Vec<String>,
    /// Two names of one weight with different values, as `name and name`.
    pub conflicting: Vec<String>,
    /// Present, neither taken nor ignored, as `name [shape]`.
    pub unexpected: Vec<String>,
}

impl Account {
    fn is_clean(&self) -> bool {
        self.kinds().iter().all(|(_, tensors)| tensors.is_empty())
    }

    fn kinds(&self) -> [(&'static str, &[String]); 5] {
        [
            ("lacks {}", &self.missing),
            ("has {} misshapen", &self.misshapen),
            ("has {} of a wrong type", &self.mistyped),
            ("has {} of conflicting values", &self.conflicting),
            ("has {} unexpected", &self.unexpected),
        ]
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        let mut separator = " ";
        for (phrase, tensors) in self.kinds() {
            if tensors.is_empty() {
                continue;
            }
            let count = match (tensors.len(), separator) {
                (1, " ") => "1 tensor".to_string(),
                (n, " ") => format!("{n} tensors"),
                (n, _) => n.to_string(),
            };
            let listed = tensors[..tensors.len().min(LISTED)].join(", ");
            write!(f, "{separator}{}: {listed}", phrase.replace("{}", &count))?;
            if tensors.len() > LISTED {
                write!(f, " and {} more", tensors.len() - LISTED)?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// Hands out a checkpoint's tensors by name and shape, and keeps account. A failed request is recorded and answered
/// with `None`, so that loading goes on to find the next fault; [`finish`](Self::finish) then returns all of them.
#[derive(Clone, Debug)]
pub struct Loader<'w> {
    weights: &'w Weights,
    prefix: String,
    book: Rc<RefCell<Book>>,
}

/// What all scopes of one loader share. Keys are full names.
#[derive(Debug, Default)]
struct Book {
    /// Taken or ignored.
    settled: BTreeSet<String>,
    missing: BTreeMap<String, String>,
    misshapen: BTreeMap<String, String>,
    mistyped: BTreeMap<String, String>,
    conflicting: BTreeMap<String, String>,
}

impl<'w> Loader<'w> {
    /// A loader over all tensors of `weights`.
    pub fn new(weights: &'w Weights) -> Self {
        Self { weights, prefix: String::new(), book: Rc::default() }
    }

    /// A scope in which every name is preceded by this loader's prefix and `prefix` (with its dot: `decoder.`). It
    /// shares this loader's account.
    pub fn prefix(&self, prefix: &str) -> Self {
        Self { prefix: self.full(prefix), ..self.clone() }
    }

    /// Whether the checkpoint holds a tensor of this name; takes nothing.
    pub fn contains(&self, name: &str) -> bool {
        self.weights.tensor(&self.full(name)).is_some()
    }

    /// Takes the tensor `name`, which must be there in shape `shape` and stored as F32, F16 or BF16. The same tensor
    /// may be taken twice.
    pub fn take(&self, name: &str, shape: &[usize]) -> Option<WeightView<'w>> {
        self.take_any(&[name], shape)
    }

    /// Takes the first tensor present among alternative names of one weight. Further ones present count as taken, must
    /// have the same shape, and where of the same type the same bytes.
    pub fn take_any(&self, names: &[&str], shape: &[usize]) -> Option<WeightView<'w>> {
        let present: Vec<&'w Tensor> =
            names.iter().filter_map(|name| self.weights.tensor(&self.full(name))).collect();
        if present.is_empty() {
            let names: Vec<String> = names.iter().map(|name| self.full(name)).collect();
            let key = names.first().cloned().unwrap_or_else(|| self.prefix.clone());
            self.book.borrow_mut().missing.insert(key, format!("{} {shape:?}", names.join(" | ")));
            return None;
        }
        let mut views =
            present.into_iter().map(|tensor| self.check(tensor, shape)).collect::<Vec<_>>().into_iter();
        let first = views.next().flatten()?;
        for other in views.flatten() {
            if other.dtype == first.dtype && other.bytes != first.bytes {
                let text = format!("{} and {}", first.name, other.name);
                self.book.borrow_mut().conflicting.insert(first.name.to_string(), text);
            }
        }
        Some(first)
    }

    /// Takes the tensor `name` if it is there; it must then have shape `shape` and be F32, F16 or BF16.
    pub fn optional(&self, name: &str, shape: &[usize]) -> Option<WeightView<'w>> {
        self.weights.tensor(&self.full(name)).and_then(|tensor| self.check(tensor, shape))
    }

    /// Declares tensors of this scope unneeded: those for which `unneeded` holds, given their name without the prefix.
    pub fn ignore(&self, unneeded: impl Fn(&str) -> bool) {
        let mut book = self.book.borrow_mut();
        for name in self.weights.names() {
            if name.strip_prefix(&self.prefix).is_some_and(&unneeded) {
                book.settled.insert(name.to_string());
            }
        }
    }

    /// Closes the account of this scope: the whole checkpoint's for a loader without prefix, else only of the names
    /// that begin with the prefix. To be called when everything has been taken.
    ///
    /// # Errors
    /// [`WeightsError::Account`] with every tensor that is missing, misshapen, of a wrong type, conflicting or
    /// unexpected, sorted by name.
    pub fn finish(&self) -> Result<(), WeightsError> {
        let book = self.book.borrow();
        let of = |map: &BTreeMap<String, String>| -> Vec<String> {
            map.iter()
                .filter(|(name, _)| name.starts_with(&self.prefix))
                .map(|(_, text)| text.clone())
                .collect()
        };
        let mut unexpected: Vec<String> = self
            .weights
            .names()
            .filter(|name| name.starts_with(&self.prefix) && !book.settled.contains(*name))
            .filter_map(|name| self.weights.tensor(name))
            .map(|tensor| format!("{} {:?}", tensor.name, tensor.shape))
            .collect();
        unexpected.sort();
        let account = Account {
            file: self.weights.path().to_path_buf(),
            missing: of(&book.missing),
            misshapen: of(&book.misshapen),
            mistyped: of(&book.mistyped),
            conflicting: of(&book.conflicting),
            unexpected,
        };
        if account.is_clean() { Ok(()) } else { Err(WeightsError::Account(Box::new(account))) }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Settles a tensor that is there, and records what is wrong with it.
    fn check(&self, tensor: &'w Tensor, shape: &[usize]) -> Option<WeightView<'w>> {
        let mut book = self.book.borrow_mut();
        let name = &tensor.name;
        book.settled.insert(name.clone());
        let shaped = tensor.shape == shape;
        if !shaped {
            book.misshapen.insert(name.clone(), format!("{name} {:?} (expected {shape:?})", tensor.shape));
        }
        let view = tensor.float_view();
        if view.is_none() {
            let found = tensor.stored.name;
            book.mistyped.insert(name.clone(), format!("{name} {found} (expected F32, F16 or BF16)"));
        }
        view.filter(|_| shaped)
    }
}
