//! The interpreter of PTX: every form of every kernel, and what it promises of shared checks.

use crate::device::SHARED;
use crate::{Judged, parity};
use auscult_kernels::Ptx;
use auscult_runtime::PtxSim;
use libtest_mimic::{Failed, Trial};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Executors that each run one form, made when first asked for.
#[derive(Clone, Default)]
pub struct Forms(Arc<Mutex<HashMap<&'static str, Arc<PtxSim>>>>);

impl Forms {
    /// A trial for every form that takes the launch. A kernel without forms has none; `tests/abi.rs` lists those.
    pub fn trials(&self, name: &str, judged: &Arc<Judged>) -> Vec<Trial> {
        let takes = |ptx: &&'static Ptx| (ptx.takes)(&judged.case.plan.params);
        let forms: Vec<&'static Ptx> = judged.case.plan.kernel.ptx.iter().filter(takes).collect();
        let several = forms.len() > 1;
        let trial = |ptx: &'static Ptx| {
            let name = if several { format!("{name}::{}", ptx.entry) } else { name.to_string() };
            let (judged, forms) = (Arc::clone(judged), self.clone());
            Trial::ignorable_test(name, move || parity(forms.executor(ptx.entry)?.as_ref(), &judged))
        };
        forms.into_iter().map(trial).collect()
    }

    /// The executor that runs this form and refuses all others.
    pub fn executor(&self, entry: &'static str) -> Result<Arc<PtxSim>, Failed> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(executor) = made.get(entry) {
            return Ok(Arc::clone(executor));
        }
        let mut executor = PtxSim::new()?.only(entry);
        if let Ok(dir) = std::env::var("AUSCULT_PTX_SOURCES") {
            executor = executor.sources(Path::new(&dir));
        }
        let executor = Arc::new(executor);
        made.insert(entry, Arc::clone(&executor));
        Ok(executor)
    }
}

/// The checks that every device shares.
pub fn trials() -> Vec<Trial> {
    let shared = SHARED.iter().map(|&(name, check)| {
        Trial::test(format!("device::{name}::ptx_sim"), move || check(&PtxSim::new()?))
    });
    shared.collect()
}
