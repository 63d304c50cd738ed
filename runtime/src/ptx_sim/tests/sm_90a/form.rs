//! A kernel's form on one case, as it is and with faults planted in its text.

use super::harness::{Planted, each_is_refused};
use crate::PtxSim;
use crate::selftest::{self, POISON, compare};
use auscult_kernels::{Case, KernelInfo, Ptx, PtxDevice};

/// One block, which goes through everything.
pub const DEVICE: PtxDevice =
    PtxDevice { capability: (9, 0), multiprocessors: 1, shared_per_block: 227 << 10 };

/// What a kernel runs on [`DEVICE`] for a case.
pub struct Form {
    pub kernel: &'static KernelInfo,
    /// Name of the folder that the kernel's sources lie in.
    pub folder: &'static str,
    pub case: Case,
}

impl Form {
    fn ptx(&self) -> &'static Ptx {
        self.kernel.ptx_for(&self.case.plan.params, &DEVICE).unwrap()
    }

    /// Runs a text of the form and compares its results with the reference.
    fn run(&self, text: &str) -> Result<(), String> {
        let (dir, form) = (tempfile::tempdir().unwrap(), self.ptx());
        let folder = dir.path().join(self.folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(format!("{}.ptx", form.entry)), text).unwrap();
        let sim = PtxSim::with_device(DEVICE).unwrap().only(form.entry).sources(dir.path());
        let case = &self.case;
        let got = selftest::run(&sim, case, POISON)?;
        let pieces = case.plan.pieces(usize::MAX, 256).unwrap();
        let want = selftest::run_reference(case, &pieces, POISON).unwrap();
        for ((slot, want), (_, got)) in want.iter().zip(&got) {
            let desc = case.plan.slots[*slot].as_ref().unwrap();
            compare(desc, got, want, &case.tolerance).map_err(|message| format!("results: {message}"))?;
        }
        Ok(())
    }

    /// The form is sound; of the faults, planted one at a time wherever their text stands, each is refused.
    pub fn faults(&self, planted: &[Planted]) {
        let Ptx { source: sound, entry, .. } = self.ptx();
        self.run(sound).unwrap();
        each_is_refused(planted, |from, to| {
            assert!(sound.contains(from), "{entry}: no `{from}`");
            self.run(&sound.replace(from, to))
        });
    }
}
