//! A graph with memory, ready to be replayed.

use crate::backend::{Backend, Buffer, Contents, DeviceError, Launch, Recording, Span, Tensor};
use crate::download::Download;
use crate::graph::{Graph, Source, Step, Value};
use std::sync::{Arc, Mutex, PoisonError};

/// What a run refuses.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An input that the graph has not, or that the caller did not give.
    #[error("program: input `{name}` {problem}")]
    Input {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An output that the graph has not.
    #[error("program: output `{name}` does not exist; there are {there}")]
    Output {
        /// What was asked for.
        name: String,
        /// The outputs there are.
        there: String,
    },
}

/// A graph bound to a device. Buffers of values that are never alive together are shared.
pub struct Program {
    backend: Arc<dyn Backend>,
    graph: Graph,
    /// Memory of every value.
    spans: Vec<Span>,
    arena_bytes: usize,
    replays: Mutex<Replays>,
}

/// How the steps are run next.
enum Replays {
    /// One by one: the first run, in which the device makes whatever launches need.
    First,
    /// Whichever way the device offers.
    Second,
    /// As one.
    Recorded(Box<dyn Recording>),
    /// One by one, since the device offers nothing else.
    OneByOne,
}

impl Program {
    /// Allocates the graph's memory on a device.
    pub fn new(backend: Arc<dyn Backend>, graph: Graph) -> Result<Self, DeviceError> {
        let arena = plan_arena(&graph);
        let arena_bytes: usize = arena.sizes.iter().sum();
        let mut buffers: Vec<Buffer> = Vec::with_capacity(arena.sizes.len());
        for &bytes in &arena.sizes {
            buffers.push(backend.alloc(Contents::Undefined(bytes)).map_err(|error| match error {
                // in terms of the whole, which is what a smaller batch makes smaller
                DeviceError::OutOfMemory { device, free: Some(free), detail, .. } => {
                    let had: usize = buffers.iter().map(Buffer::bytes).sum();
                    DeviceError::OutOfMemory { device, asked: arena_bytes, free: Some(free + had), detail }
                }
                other => other,
            })?);
        }
        let mut spans: Vec<Span> = Vec::with_capacity(graph.descs.len());
        for (i, desc) in graph.descs.iter().enumerate() {
            spans.push(match &graph.sources[i] {
                Source::Constant(tensor) => tensor.span.clone(),
                Source::View(of) => spans[of.0].clone(),
                Source::Input(_) | Source::Step => match arena.buffer_of[i] {
                    Some(b) => Span { buffer: buffers[b].clone(), offset: 0, bytes: desc.bytes() },
                    // never read and never written: an input that no step uses
                    None => backend.alloc(Contents::Undefined(desc.bytes()))?.span(),
                },
            });
        }
        Ok(Self { backend, graph, spans, arena_bytes, replays: Mutex::new(Replays::First) })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Bytes of device memory that this program holds beside its constants.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Uploads every input and runs every step. Returns when the work is queued; [`Self::output`] waits for it.
    pub fn run(&self, inputs: &[(&str, &[u8])]) -> Result<(), RunError> {
        let bad = |name: &str, problem: String| RunError::Input { name: name.into(), problem };
        for (name, _) in inputs {
            let known = |s: &Source| matches!(s, Source::Input(n) if n == name);
            if !self.graph.sources.iter().any(known) {
                return Err(bad(name, "does not exist".into()));
            }
        }
        for (i, source) in self.graph.sources.iter().enumerate() {
            let Source::Input(name) = source else { continue };
            let desc = &self.graph.descs[i];
            let Some((_, bytes)) = inputs.iter().find(|(n, _)| n == name) else {
                return Err(bad(name, format!("is missing, expected {desc}")));
            };
            if bytes.len() != desc.bytes() {
                return Err(bad(
                    name,
                    format!("has {} bytes, expected {} for {desc}", bytes.len(), desc.bytes()),
                ));
            }
            self.backend.upload(&self.spans[i], bytes)?;
        }
        self.replay()
    }

    /// Runs every step on the inputs as they lie; a caller may have filled them through [`Self::input_tensor`].
    ///
    /// A step may reuse an input's memory once the input is spent, so every input is filled before every replay.
    ///
    /// The first run makes the launches one by one; from the second on, a device that can keeps them as one.
    pub fn replay(&self) -> Result<(), RunError> {
        // a panic leaves a state that was true before
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        if let Replays::Second = *replays {
            *replays = match self.backend.record(&self.launches().collect::<Vec<_>>())? {
                Some(recording) => Replays::Recorded(recording),
                None => Replays::OneByOne,
            };
        }
        if let Replays::Recorded(recording) = &*replays {
            return Ok(recording.replay()?);
        }
        for (plan, spans) in self.launches() {
            self.backend.dispatch(plan, &spans)?;
        }
        if let Replays::First = *replays {
            *replays = Replays::Second;
        }
        Ok(())
    }

    fn launches(&self) -> impl Iterator<Item = Launch<'_>> {
        self.graph.steps.iter().filter_map(|step| match step {
            Step::Dispatch { plan, slots } => {
                let span = |value: &Option<Value>| value.map(|value| self.spans[value.0].clone());
                Some((plan, slots.iter().map(span).collect()))
            }
            Step::Site { .. } => None,
        })
    }

    /// An input where it lies, for a copy from elsewhere on the device.
    pub fn input_tensor(&self, name: &str) -> Result<Tensor, RunError> {
        let at = self.graph.sources.iter().position(|s| matches!(s, Source::Input(n) if n == name));
        let at = at.ok_or_else(|| RunError::Input { name: name.into(), problem: "does not exist".into() })?;
        Ok(Tensor { desc: self.graph.descs[at].clone(), span: self.spans[at].clone() })
    }

    fn find(&self, name: &str) -> Result<Value, RunError> {
        self.graph.outputs.iter().find(|(n, _)| n == name).map(|(_, v)| *v).ok_or_else(|| RunError::Output {
            name: name.into(),
            there: self.graph.outputs().collect::<Vec<_>>().join(", "),
        })
    }

    /// Bytes of an output of the last run.
    pub fn output(&self, name: &str) -> Result<Vec<u8>, RunError> {
        Ok(self.backend.download(&self.spans[self.find(name)?.0])?)
    }

    /// Begins to fetch an output of the last run, which stays what it is if the program is run again before it is here.
    pub fn start_output(&self, name: &str) -> Result<Download, RunError> {
        Ok(self.backend.start_download(&self.spans[self.find(name)?.0])?)
    }

    /// An f32 output of the last run.
    pub fn output_f32(&self, name: &str) -> Result<Vec<f32>, RunError> {
        Ok(bytemuck::pod_collect_to_vec(&self.output(name)?))
    }

    /// A u32 output of the last run.
    pub fn output_u32(&self, name: &str) -> Result<Vec<u32>, RunError> {
        Ok(bytemuck::pod_collect_to_vec(&self.output(name)?))
    }

    /// An output where it lies; valid until the next run.
    pub fn output_tensor(&self, name: &str) -> Result<Tensor, RunError> {
        let value = self.find(name)?;
        Ok(Tensor { desc: self.graph.descs[value.0].clone(), span: self.spans[value.0].clone() })
    }
}

/// Sizes of the shared buffers, and which one each value lies in.
struct Arena {
    sizes: Vec<usize>,
    buffer_of: Vec<Option<usize>>,
}

/// Walks the steps once, giving each value a free buffer when it is written and freeing it after its last use.
fn plan_arena(graph: &Graph) -> Arena {
    let mut last_use = vec![0; graph.descs.len()];
    for (at, step) in graph.steps.iter().enumerate() {
        if let Step::Dispatch { slots, .. } = step {
            for value in slots.iter().flatten() {
                last_use[graph.root(*value).0] = at;
            }
        }
    }
    for (_, value) in &graph.outputs {
        last_use[graph.root(*value).0] = usize::MAX;
    }
    let mut arena = Arena { sizes: vec![], buffer_of: vec![None; graph.descs.len()] };
    let mut free: Vec<usize> = vec![];
    // inputs are uploaded before the first step
    for (i, source) in graph.sources.iter().enumerate() {
        if matches!(source, Source::Input(_)) {
            arena.place(i, graph.descs[i].bytes(), &mut free);
        }
    }
    for (at, step) in graph.steps.iter().enumerate() {
        let Step::Dispatch { slots, .. } = step else { continue };
        let roots: Vec<Value> = slots.iter().flatten().map(|v| graph.root(*v)).collect();
        for root in &roots {
            if matches!(graph.sources[root.0], Source::Step) && arena.buffer_of[root.0].is_none() {
                arena.place(root.0, graph.descs[root.0].bytes(), &mut free);
            }
        }
        // only now: what a step writes may not lie where the same step reads
        for root in roots {
            if last_use[root.0] == at
                && let Some(buffer) = arena.buffer_of[root.0]
                && !free.contains(&buffer)
            {
                free.push(buffer);
            }
        }
    }
    arena
}

impl Arena {
    /// The smallest free buffer that is long enough, else the longest one, lengthened, else a new one.
    fn place(&mut self, value: usize, bytes: usize, free: &mut Vec<usize>) {
        let fitting = free.iter().copied().filter(|&b| self.sizes[b] >= bytes).min_by_key(|&b| self.sizes[b]);
        let chosen = fitting.or_else(|| free.iter().copied().max_by_key(|&b| self.sizes[b]));
        let buffer = chosen.unwrap_or_else(|| {
            self.sizes.push(0);
            self.sizes.len() - 1
        });
        free.retain(|&b| b != buffer);
        self.sizes[buffer] = self.sizes[buffer].max(bytes);
        self.buffer_of[value] = Some(buffer);
    }
}
