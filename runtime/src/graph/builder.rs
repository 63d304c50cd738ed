//! How a graph is recorded.

use super::{Edit, Edits, Graph, GraphError, Insert, Operand, Place, Source, Step, Value, nearest};
use crate::backend::Tensor;
use auscult_kernels::ops::capture::Capture as CaptureOp;
use auscult_kernels::{Access, DType, Op, Slot, TensorDesc};
use std::collections::BTreeSet;
use std::fmt;

/// Records a [`Graph`].
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
    edits: Edits,
    /// Rows that captures keep; all of them if `None`.
    kept_rows: Option<Value>,
    /// Values that were made together with a rounded copy, and that copy.
    rounded: Vec<(Value, Value)>,
    passed: BTreeSet<String>,
}

impl GraphBuilder {
    /// An empty graph that will apply `edits` at the sites they name.
    pub fn new(edits: Edits) -> Self {
        let graph = Graph { descs: vec![], sources: vec![], steps: vec![], outputs: vec![] };
        Self { graph, edits, kept_rows: None, rounded: vec![], passed: BTreeSet::new() }
    }

    fn value(&mut self, desc: TensorDesc, source: Source) -> Value {
        self.graph.descs.push(desc);
        self.graph.sources.push(source);
        Value(self.graph.descs.len() - 1)
    }

    /// Type and shape of a value.
    pub fn desc(&self, value: Value) -> &TensorDesc {
        &self.graph.descs[value.0]
    }

    /// A tensor that the caller fills before each run.
    pub fn input(&mut self, name: &str, desc: TensorDesc) -> Result<Value, GraphError> {
        let taken = |s: &Source| matches!(s, Source::Input(n) if n == name);
        if self.graph.sources.iter().any(taken) {
            return Err(GraphError::Duplicate { kind: "input", name: name.into() });
        }
        Ok(self.value(desc, Source::Input(name.into())))
    }

    /// A tensor that lies on the device already, such as a weight.
    pub fn constant(&mut self, tensor: &Tensor) -> Value {
        self.value(tensor.desc.clone(), Source::Constant(tensor.clone()))
    }

    /// The same memory under another shape.
    pub fn view(&mut self, value: Value, shape: impl Into<Vec<usize>>) -> Result<Value, GraphError> {
        let from = self.desc(value).clone();
        let to = TensorDesc::new(from.dtype, shape);
        if from.elements() != to.elements() {
            return Err(GraphError::View { from, to });
        }
        Ok(self.value(to, Source::View(value)))
    }

    /// Applies an op to values: those of the slots that it reads or updates in place, in binding order; `None` leaves an
    /// optional slot out. Returns what the first slot that is only written becomes, or the first value updated in place
    /// where there is none.
    ///
    /// What is updated in place stays the same value: every later reader sees it as the op left it, an output that it was
    /// named as included. A constant keeps its new contents from one replay to the next.
    pub fn op(&mut self, op: &dyn Op, inputs: &[Option<Value>]) -> Result<Value, GraphError> {
        Ok(self.launch(op, inputs, &[])?[0])
    }

    /// As [`Self::op`], for an op that writes several slots, all of which are returned, in binding order. Each may be written
    /// into a tensor that lies on the device already; those that `into` does not reach, or that are `None` there, get memory of
    /// the graph's own.
    pub fn op_all(
        &mut self,
        op: &dyn Op,
        inputs: &[Option<Value>],
        into: &[Option<&Tensor>],
    ) -> Result<Vec<Value>, GraphError> {
        self.launch(op, inputs, into)
    }

    /// As [`Self::op`], writing into `into` in place of memory of the graph's own: a tensor that lies on the device
    /// already, and so carries what it holds to the next replay.
    pub fn op_into(
        &mut self,
        op: &dyn Op,
        inputs: &[Option<Value>],
        into: &Tensor,
    ) -> Result<Value, GraphError> {
        Ok(self.launch(op, inputs, &[Some(into)])?[0])
    }

    /// Applies an op to values, as [`Self::op`] does, that writes an f32 value and then that value rounded. A capture of
    /// all its rows in the type of the copy is that copy, and no launch of its own.
    ///
    /// # Panics
    /// Where the op's kernel does not write two slots.
    pub fn op_with_rounded(&mut self, op: &dyn Op, inputs: &[Option<Value>]) -> Result<Value, GraphError> {
        let value = self.launch(op, inputs, &[])?[0];
        let Some(Step::Dispatch { plan, slots }) = self.graph.steps.last() else {
            unreachable!("a launch is a step")
        };
        let is_copy = |(slot, written): &(&Slot, &Option<Value>)| {
            slot.access == Access::Write && **written != Some(value)
        };
        let copy = plan.kernel.slots.iter().zip(slots).find(is_copy).and_then(|(_, copy)| *copy);
        self.rounded.push((value, copy.expect("the op writes a value and its rounded copy")));
        Ok(value)
    }

    fn launch(
        &mut self,
        op: &dyn Op,
        inputs: &[Option<Value>],
        into: &[Option<&Tensor>],
    ) -> Result<Vec<Value>, GraphError> {
        let descs: Vec<_> = inputs.iter().map(|v| v.map(|v| &self.graph.descs[v.0])).collect();
        let plan = op.plan(&descs)?;
        let mut given = inputs.iter();
        let mut next = || *given.next().expect("plan() accepted this many inputs");
        let mut slots = Vec::with_capacity(plan.slots.len());
        let (mut written, mut updated) = (Vec::new(), None);
        for (slot, desc) in plan.kernel.slots.iter().zip(&plan.slots) {
            slots.push(match slot.access {
                Access::Read => next(),
                Access::ReadWrite => {
                    let value = next();
                    if let Some(root) = value.map(|value| self.graph.root(value)) {
                        // a copy is of what stood there before
                        self.rounded.retain(|&(of, _)| self.graph.root(of) != root);
                    }
                    updated = updated.or(value);
                    value
                }
                Access::Write => {
                    let desc = desc.clone().expect("written slots are never left out");
                    let value = match into.get(written.len()).copied().flatten() {
                        Some(tensor) if tensor.desc == desc => self.constant(tensor),
                        Some(tensor) => {
                            return Err(GraphError::Into {
                                op: plan.kernel.name,
                                got: tensor.desc.clone(),
                                want: desc,
                            });
                        }
                        None => self.value(desc, Source::Step),
                    };
                    written.push(value);
                    Some(value)
                }
            });
        }
        self.graph.steps.push(Step::Dispatch { plan, slots });
        if written.is_empty() {
            written.push(updated.expect("every kernel writes something"));
        }
        Ok(written)
    }

    /// Makes every later capture keep only these rows (u32 `[kept]`), in this order.
    pub fn keep_rows(&mut self, rows: Option<Value>) {
        self.kept_rows = rows;
    }

    /// Whether an edit wants this site; where none does, the builder may fuse across it and never mark it.
    pub fn wants(&self, site: impl fmt::Display) -> bool {
        self.edits.at(&site.to_string()).next().is_some()
    }

    /// Whether an edit at this site stores all its rows as `dtype`, so that what makes the value may store them at once.
    pub fn captures_all(&self, site: impl fmt::Display, dtype: DType) -> bool {
        let site = site.to_string();
        let captures = |edit: &Edit| matches!(edit, Edit::Capture { dtype: kept, .. } if *kept == dtype);
        self.kept_rows.is_none() && self.edits.at(&site).any(captures)
    }

    /// Marks a site, applies its edits, and returns the value that goes on: captures first, then inserts, so a capture
    /// sees the value before the edits and everything after the site sees the value behind them.
    pub fn site(&mut self, site: impl fmt::Display, value: Value) -> Result<Value, GraphError> {
        let id = site.to_string();
        if !self.passed.insert(id.clone()) {
            return Err(GraphError::Duplicate { kind: "site", name: id });
        }
        self.graph.steps.push(Step::Site { id: id.clone(), value });
        let edits: Vec<Edit> = self.edits.at(&id).cloned().collect();
        for edit in &edits {
            if let Edit::Capture { into, dtype } = edit {
                let stored = self.captured(value, *dtype)?;
                self.output(into, stored)?;
            }
        }
        let mut current = value;
        for edit in edits {
            let Edit::Insert(ops) = edit else { continue };
            // what every insert made, those within the stream too
            let mut made: Vec<Vec<Value>> = Vec::with_capacity(ops.len());
            for insert in ops {
                let new = self.insert(&id, current, &made, &insert)?;
                match &insert.place {
                    Place::Within => current = new[0],
                    Place::Beside => (),
                    Place::Output(names) => self.name_outputs(&id, &new, names)?,
                }
                made.push(new);
            }
        }
        Ok(current)
    }

    fn captured(&mut self, value: Value, dtype: DType) -> Result<Value, GraphError> {
        let copy = self.rounded.iter().find(|&&(of, copy)| of == value && self.desc(copy).dtype == dtype);
        match (copy, self.kept_rows) {
            (Some(&(_, copy)), None) => Ok(copy),
            (_, rows) => self.op(&CaptureOp { dtype }, &[Some(value), rows]),
        }
    }

    fn name_outputs(&mut self, site: &str, written: &[Value], names: &[String]) -> Result<(), GraphError> {
        if written.len() != names.len() {
            return Err(GraphError::Outputs {
                site: site.into(),
                written: written.len(),
                names: names.join(", "),
            });
        }
        names.iter().zip(written).try_for_each(|(name, value)| self.output(name, *value))
    }

    /// What the slots that the op writes become, or else the first value that it updates.
    fn insert(
        &mut self,
        site: &str,
        current: Value,
        made: &[Vec<Value>],
        insert: &Insert,
    ) -> Result<Vec<Value>, GraphError> {
        let beside = |back: usize, slot: usize| {
            let at = made.len().checked_sub(back).filter(|_| back > 0);
            let value = at.and_then(|at| made[at].get(slot).copied());
            value.ok_or_else(|| GraphError::Beside { site: site.into(), back })
        };
        let mut inputs = Vec::with_capacity(insert.inputs.len());
        for operand in &insert.inputs {
            inputs.push(match operand {
                Operand::Site => Some(current),
                Operand::Tensor(tensor) => Some(self.constant(tensor)),
                Operand::Beside(back) => Some(beside(*back, 0)?),
                Operand::BesideSlot { back, slot } => Some(beside(*back, *slot)?),
                Operand::Absent => None,
            });
        }
        let new = self.op(&*insert.op, &inputs)?;
        let mut written = Vec::new();
        if let Some(Step::Dispatch { plan, slots }) = self.graph.steps.last() {
            let slots_written =
                plan.kernel.slots.iter().zip(slots).filter(|(s, _)| s.access == Access::Write);
            written.extend(slots_written.filter_map(|(_, value)| *value));
            let updates = |(slot, value): (&Slot, &Option<Value>)| {
                slot.access == Access::ReadWrite && *value == Some(current)
            };
            let constant = matches!(self.graph.sources[self.graph.root(current).0], Source::Constant(_));
            if constant && plan.kernel.slots.iter().zip(slots).any(updates) {
                return Err(GraphError::InsertConstant { site: site.into(), op: plan.kernel.name });
            }
        }
        if insert.place == Place::Within && self.desc(new) != self.desc(current) {
            return Err(GraphError::InsertShape {
                site: site.into(),
                got: self.desc(new).clone(),
                want: self.desc(current).clone(),
            });
        }
        if written.is_empty() {
            written.push(new);
        }
        Ok(written)
    }

    /// Names a value that the caller reads after a run.
    pub fn output(&mut self, name: &str, value: Value) -> Result<(), GraphError> {
        if self.graph.outputs.iter().any(|(n, _)| n == name) {
            return Err(GraphError::Duplicate { kind: "output", name: name.into() });
        }
        self.graph.outputs.push((name.into(), value));
        Ok(())
    }

    /// The finished graph. An edit whose site was never passed is an error that names the nearest ones.
    pub fn finish(self) -> Result<Graph, GraphError> {
        if let Some(site) = self.edits.sites().find(|s| !self.passed.contains(*s)) {
            let nearest = nearest(site, self.passed.iter().map(String::as_str));
            return Err(GraphError::UnknownSite { site: site.into(), nearest });
        }
        Ok(self.graph)
    }
}
