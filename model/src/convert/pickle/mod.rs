//! A pickle reader that builds data and nothing else.
//!
//! Pickle is a program for a small stack machine, and two of its instructions call any function the file names. This
//! reader runs the machine for protocols 0 to 5 but knows no functions: the callables that `torch.save` needs for plain
//! tensors are recognised by name and answered with values of [`Node`]; any other name, call or attribute assignment is
//! refused, naming it. Opcodes and layouts: CPython `Lib/pickle.py`; names: torch `torch/_utils.py`, `torch/storage.py`.
//!
//! Values live in an arena and refer to each other by index, so a file cannot exhaust the call stack by nesting, nor
//! leak by cycles. Each opcode makes at most one node of bounded size, so memory is bounded by the file's length.

mod input;
mod machine;

use super::dtype::TorchDType;
use machine::Machine;

/// Largest pickle that is read; a checkpoint's names and shapes take well under a megabyte.
pub const MAX_PICKLE_BYTES: usize = 16 << 20;

/// Index of a value in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

/// One value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dict, in the order of the file; `ordered` for `collections.OrderedDict`, which may carry attributes (dropped).
    Dict {
        /// Keys and values.
        entries: Vec<(Id, Id)>,
        /// Whether it was made by `collections.OrderedDict`.
        ordered: bool,
    },
    /// A name that `torch.save` uses for tensors.
    Global(Allowed),
    /// A block of numbers in another file of the archive.
    Storage(Box<StorageRef>),
    /// A strided view of a storage.
    Tensor(Box<TensorView>),
}

/// The callables and classes that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.FloatStorage` and its kin.
    Storage(TorchDType),
}

/// A storage of the archive: the file `data/<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageRef {
    /// Element type.
    pub dtype: TorchDType,
    /// Name of the file below `data/`.
    pub key: String,
    /// Number of elements.
    pub elements: u64,
}

/// A tensor as torch stores it: a strided window on a storage. Checked on construction: every index lies inside the
/// storage, and there are no more elements than the storage has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorView {
    /// The storage it looks at.
    pub storage: StorageRef,
    /// First element.
    pub offset: u64,
    /// Extents, slowest first.
    pub shape: Vec<u64>,
    /// Elements between neighbours along each axis.
    pub strides: Vec<u64>,
}

impl TensorView {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether the elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        if self.elements() == 0 {
            return true;
        }
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&extent, &stride)| {
            let fits = extent == 1 || stride == expected;
            expected *= extent;
            fits
        })
    }

    /// Elements from the first to the last in memory, both included.
    pub fn span(&self) -> u64 {
        if self.elements() == 0 {
            return 0;
        }
        1 + self.shape.iter().zip(&self.strides).map(|(&extent, &stride)| (extent - 1) * stride).sum::<u64>()
    }

    /// Rows `start .. start + rows` of the first axis, or `None` outside of it.
    pub fn narrow(&self, start: u64, rows: u64) -> Option<Self> {
        let mut view = self.clone();
        let extent = view.shape.first_mut()?;
        if start.checked_add(rows)? > *extent {
            return None;
        }
        *extent = rows;
        view.offset = view.offset.checked_add(start.checked_mul(self.strides[0])?)?;
        Some(view)
    }
}

/// Why a pickle was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PickleError {
    /// It asks for something other than data; holds its dotted name or the operation.
    Refused(String),
    /// It is malformed; holds what was found and expected.
    Malformed(String),
}

type Result<T, E = PickleError> = std::result::Result<T, E>;

fn malformed<T>(message: impl Into<String>) -> Result<T> {
    Err(PickleError::Malformed(message.into()))
}

/// A whole pickle: an arena of values and its root.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Runs the pickle program `bytes`.
    ///
    /// # Errors
    /// [`PickleError::Refused`] with the name of anything but tensor data, [`PickleError::Malformed`] otherwise.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_PICKLE_BYTES {
            return malformed(format!(
                "a pickle of {} bytes, expected at most {MAX_PICKLE_BYTES}",
                bytes.len()
            ));
        }
        Machine::new(bytes).run()
    }

    /// The value that the program leaves.
    pub fn root(&self) -> Value<'_> {
        Value { pickle: self, id: self.root }
    }
}

/// A value seen with its arena.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pickle: &'a Pickle,
    id: Id,
}

impl<'a> Value<'a> {
    /// The node itself.
    pub fn node(self) -> &'a Node {
        &self.pickle.nodes[self.id.0]
    }

    /// The text, if it is text.
    pub fn as_str(self) -> Option<&'a str> {
        match self.node() {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The tensor, if it is one.
    pub fn as_tensor(self) -> Option<&'a TensorView> {
        match self.node() {
            Node::Tensor(view) => Some(view),
            _ => None,
        }
    }

    /// The entries, if it is a dict; a key that occurs twice counts with its last value.
    pub fn entries(self) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self.node() {
            Node::Dict { entries, .. } => {
                let at = |id| Value { pickle: self.pickle, id };
                Some(entries.iter().map(|&(key, value)| (at(key), at(value))).collect())
            }
            _ => None,
        }
    }

    /// The value of text key `name`, if it is a dict that has one.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.entries()?.into_iter().rev().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }

    /// What kind of value it is, for messages.
    pub fn kind(self) -> &'static str {
        match self.node() {
            Node::None => "None",
            Node::Bool(_) => "a bool",
            Node::Int(_) => "an int",
            Node::Float(_) => "a float",
            Node::Str(_) => "a str",
            Node::Bytes(_) => "bytes",
            Node::List(_) => "a list",
            Node::Tuple(_) => "a tuple",
            Node::Dict { .. } => "a dict",
            Node::Global(_) => "a class",
            Node::Storage(_) => "a storage",
            Node::Tensor(_) => "a tensor",
        }
    }
}
