//! A recorded sequence of launches, the places in it that can be watched or changed, and how it is built.
//!
//! A graph knows shapes and no memory; [`crate::Program`] gives it memory and replays it. Edits are known when a
//! graph is built, so a builder may fuse across a site exactly when no edit wants it: a fused graph cannot swallow a
//! hook.

mod builder;
mod edits;
mod error;

pub use builder::GraphBuilder;
pub use edits::{Edit, Edits, Insert, Operand, Place};
pub use error::{GraphError, nearest};

use crate::backend::Tensor;
use auscult_kernels::{Plan, TensorDesc};
use std::fmt;

/// A tensor of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) usize);

/// Where a tensor's memory comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Filled by the caller before each run.
    Input(String),
    /// Lies on the device already.
    Constant(Tensor),
    /// Written by a step.
    Step,
    /// The same memory as another value, under another shape.
    View(Value),
}

/// One step of a graph.
#[derive(Clone, Debug)]
pub enum Step {
    /// A launch over the values of its slots.
    Dispatch {
        /// What is launched.
        plan: Plan,
        /// Values in slot order; `None` where left out.
        slots: Vec<Option<Value>>,
    },
    /// A place that edits may name; `value` is what stands there before any edit.
    Site {
        /// Its name.
        id: String,
        /// What passes through it.
        value: Value,
    },
}

/// Steps over values, ready to be given memory.
#[derive(Debug)]
pub struct Graph {
    pub(crate) descs: Vec<TensorDesc>,
    pub(crate) sources: Vec<Source>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<(String, Value)>,
}

impl Graph {
    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Names of the sites passed, in order.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Site { id, .. } => Some(id.as_str()),
            Step::Dispatch { .. } => None,
        })
    }

    /// The value whose memory `value` uses.
    pub(crate) fn root(&self, value: Value) -> Value {
        match self.sources[value.0] {
            Source::View(of) => self.root(of),
            _ => value,
        }
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step {
                Step::Site { id, value } => writeln!(f, "site {id}  %{}  {}", value.0, self.descs[value.0])?,
                Step::Dispatch { plan, slots } => {
                    write!(f, "  {}", plan.kernel.name)?;
                    for (slot, value) in plan.kernel.slots.iter().zip(slots) {
                        if let Some(value) = value {
                            write!(f, "  {} %{} {:?}", slot.name, value.0, self.descs[value.0].shape)?;
                        }
                    }
                    writeln!(f)?;
                }
            }
        }
        for (name, value) in &self.outputs {
            writeln!(f, "output {name}  %{}  {}", value.0, self.descs[value.0])?;
        }
        Ok(())
    }
}
