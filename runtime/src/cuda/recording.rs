//! Launches kept as a CUDA graph: made once by capturing the compute stream, replayed by one call.

use super::Shared;
use super::launch::Ready;
use crate::backend::{Buffer, DeviceError, Launch, Recording};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use std::sync::Arc;

/// A graph, and what it names.
struct Recorded {
    shared: Arc<Shared>,
    /// Taken when this drops.
    graph: Option<CudaGraph>,
    /// Entries of its last launches, for whatever fails after it.
    entries: Vec<&'static str>,
    /// The memory that its launches read and write.
    _buffers: Vec<Buffer>,
}

// SAFETY: the graph is used in `replay` and `drop` alone, both of which hold the lock of `shared` meanwhile, and the driver
// takes its handles from any thread; the rest is `Send` and `Sync` by itself
unsafe impl Send for Recorded {}
// SAFETY: as above
unsafe impl Sync for Recorded {}

/// Captures launches. Everything that they need is made before: nothing but launches and the zeroing of their workspaces
/// may be asked of a stream that is captured. `None` where the driver would not capture them; they can still be made
/// one by one.
pub(super) fn record(
    shared: &Arc<Shared>,
    only: Option<&'static str>,
    launches: &[Launch<'_>],
) -> Result<Option<Box<dyn Recording>>, DeviceError> {
    let gpu = &shared.gpu;
    gpu.enter()?;
    let mut state = shared.lock();
    let state = &mut *state;
    let mut made = Vec::with_capacity(launches.len());
    for (plan, slots) in launches {
        let bound = shared.bound(plan, slots)?;
        if plan.is_empty() {
            continue;
        }
        if let Some(ready) = state.ready(gpu, plan, only)? {
            made.push((ready, *plan, bound));
        }
    }
    if made.is_empty() {
        return Ok(None);
    }
    state.join_uploads(gpu)?;
    if state.compute.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).is_err() {
        return Ok(None);
    }
    let launched = made.iter().try_for_each(|(ready, plan, bound)| state.launch(gpu, ready, plan, bound));
    // the stream leaves its capture whatever happened within
    let graph = state.compute.end_capture(CUgraphInstantiate_flags(0));
    let (Ok(()), Ok(Some(graph))) = (launched, graph) else { return Ok(None) };
    let spans = launches.iter().flat_map(|(_, slots)| slots.iter().flatten());
    let last = made.len().saturating_sub(3);
    Ok(Some(Box::new(Recorded {
        shared: Arc::clone(shared),
        graph: Some(graph),
        entries: made[last..].iter().map(|(ready, ..): &(Ready, _, _)| ready.entry()).collect(),
        _buffers: spans.map(|span| span.buffer.clone()).collect(),
    })))
}

impl Recording for Recorded {
    fn replay(&self) -> Result<(), DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.enter()?;
        let mut state = self.shared.lock();
        state.join_uploads(gpu)?;
        let graph = self.graph.as_ref().expect("taken only when this drops");
        self.entries.iter().for_each(|entry| gpu.launched(entry));
        state.counters.replays += 1;
        gpu.attempt("replaying a recording", graph.launch())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let state = self.shared.lock();
        // the graph may be running; this also makes the context current for its destruction
        let _ = state.compute.synchronize();
        self.graph = None;
    }
}
