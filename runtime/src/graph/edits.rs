//! What is to be done at the sites of a graph.

use crate::backend::Tensor;
use auscult_kernels::{DType, Op};
use std::fmt;
use std::sync::Arc;

/// An argument of an inserted op.
#[derive(Clone, Debug)]
pub enum Operand {
    /// The value at the site as the inserts before this one left it.
    Site,
    /// A tensor on the device.
    Tensor(Tensor),
    /// What the op placed beside the site so many inserts of the same edit ago made; 1 is the one before.
    Beside(usize),
    /// The same of an op that writes several slots: what it wrote to one of them, counted from 0.
    BesideSlot {
        /// How many inserts ago.
        back: usize,
        /// Which of the slots that it writes.
        slot: usize,
    },
    /// An optional slot left out.
    Absent,
}

/// Where an inserted op stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the stream: its output, or the site's value updated in place, takes the site's place. It must have the site's
    /// shape.
    Within,
    /// Beside the stream: what it makes is for the inserts behind it, or lies in a tensor that it updates.
    Beside,
    /// Beside the stream, and each slot that it writes is an output of the graph, by these names in slot order.
    Output(Vec<String>),
}

/// An op placed at a site.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The operation, waiting for the site's shape.
    pub op: Arc<dyn Op>,
    /// The slots that it reads or updates in place, in binding order.
    pub inputs: Vec<Operand>,
    /// Where it stands.
    pub place: Place,
}

impl Insert {
    /// An op of the site's value alone.
    pub fn unary(op: impl Op + 'static) -> Self {
        Self { op: Arc::new(op), inputs: vec![Operand::Site], place: Place::Within }
    }

    /// An op of the site's value and a tensor.
    pub fn binary(op: impl Op + 'static, tensor: Tensor) -> Self {
        Self { op: Arc::new(op), inputs: vec![Operand::Site, Operand::Tensor(tensor)], place: Place::Within }
    }
}

/// Something done at a site. Data, not closures: printable, and the same on every replay.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Store the value in the output `into`, as `dtype`. Sees the value before every insert at the same site.
    Capture {
        /// Name of the output, as [`crate::Program::output`] takes it.
        into: String,
        /// F32, F16 or BF16.
        dtype: DType,
    },
    /// Put these ops, in order, between the site and what follows it.
    Insert(Vec<Insert>),
}

/// Edits by site name, in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Edits(Vec<(String, Edit)>);

impl Edits {
    /// No edits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an edit at a site.
    pub fn push(&mut self, site: impl fmt::Display, edit: Edit) -> &mut Self {
        self.0.push((site.to_string(), edit));
        self
    }

    /// Adds a capture at a site; the output carries the site's name.
    pub fn capture(&mut self, site: impl fmt::Display, dtype: DType) -> &mut Self {
        let into = site.to_string();
        self.push(site, Edit::Capture { into, dtype })
    }

    /// Adds inserts at a site.
    pub fn insert(&mut self, site: impl fmt::Display, ops: Vec<Insert>) -> &mut Self {
        self.push(site, Edit::Insert(ops))
    }

    /// Names of the sites that are edited.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(site, _)| site.as_str())
    }

    /// The same edits with every site's name replaced; outputs keep theirs.
    pub fn with_sites<E>(self, mut rename: impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        let renamed = self.0.into_iter().map(|(site, edit)| Ok((rename(&site)?, edit)));
        Ok(Self(renamed.collect::<Result<_, E>>()?))
    }

    pub(super) fn at<'a>(&'a self, site: &'a str) -> impl Iterator<Item = &'a Edit> {
        self.0.iter().filter(move |(s, _)| s == site).map(|(_, edit)| edit)
    }
}
