//! Who does what, and when: panels are made and all blocks of rows are led past them by all threads, of which none waits for the
//! others at the end of a panel.

use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

/// Panels that are there at a time, besides one for each thread: one is looked through, one is made.
const AHEAD: usize = 2;
/// Looks at a condition before another thread may have the processor.
const SPINS: usize = 200;

/// Memory for a panel, and how many panels were made up to the one in it.
struct Place<P> {
    made: AtomicUsize,
    panel: RwLock<P>,
}

/// A block of rows, and how many panels it was led past.
struct Block<'a, R> {
    passed: AtomicUsize,
    rows: Mutex<&'a mut [R]>,
}

/// Blocks of rows in front of panels.
///
/// There are `panels + 1` rounds of jobs: in each, a panel is made, and every block is led past the one before it. Threads take jobs
/// in this order, so what a job waits for was taken before it by a thread that is at work: nothing waits for ever.
pub(super) struct Line<'a, P, R> {
    panels: usize,
    places: Vec<Place<P>>,
    blocks: Vec<Block<'a, R>>,
    next: AtomicUsize,
    stopped: AtomicBool,
}

impl<'a, P: Send + Sync, R: Send> Line<'a, P, R> {
    /// Of so many panels, `empty` being memory for one.
    pub fn new(panels: usize, empty: impl Fn() -> P, blocks: impl Iterator<Item = &'a mut [R]>) -> Self {
        let place = |_| Place { made: AtomicUsize::new(0), panel: RwLock::new(empty()) };
        let block = |rows| Block { passed: AtomicUsize::new(0), rows: Mutex::new(rows) };
        Self {
            panels,
            places: (0..panels.min(rayon::current_num_threads() + AHEAD)).map(place).collect(),
            blocks: blocks.map(block).collect(),
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Makes every panel by `make` and leads every block past all of them, in order, by `lead`, which are told the numbers of panel
    /// and block. False once one of them says so; what is left is not done then. Neither may use other threads.
    pub fn run(
        &self,
        make: impl Fn(usize, &mut P) -> bool + Sync,
        lead: impl Fn(usize, &P, usize, &mut [R]) -> bool + Sync,
    ) -> bool {
        let make = |number: usize| {
            let place = &self.places[number % self.places.len()];
            // of what lay there before
            let passed = (number + 1).saturating_sub(self.places.len());
            self.wait(|| self.blocks.iter().all(|block| block.passed.load(Ordering::Acquire) >= passed));
            let ok =
                self.goes_on() && make(number, &mut place.panel.write().expect("no thread panics with it"));
            place.made.store(number + 1, Ordering::Release);
            ok
        };
        let lead = |number: usize, at: usize| {
            let (place, block) = (&self.places[number % self.places.len()], &self.blocks[at]);
            self.wait(|| place.made.load(Ordering::Acquire) == number + 1);
            self.wait(|| block.passed.load(Ordering::Acquire) == number);
            let ok = self.goes_on() && {
                let panel = place.panel.read().expect("no thread panics with it");
                lead(number, &panel, at, &mut block.rows.lock().expect("no thread panics with it"))
            };
            block.passed.store(number + 1, Ordering::Release);
            ok
        };
        let jobs = 1 + self.blocks.len();
        let work = |_| {
            let _stop = StopOnPanic(&self.stopped);
            while self.goes_on() {
                let job = self.next.fetch_add(1, Ordering::Relaxed);
                let ok = match (job / jobs, job % jobs) {
                    (round, _) if round > self.panels => break,
                    (round, 0) => round == self.panels || make(round),
                    (0, _) => true,
                    (round, block) => lead(round - 1, block - 1),
                };
                if !ok {
                    self.stopped.store(true, Ordering::Relaxed);
                }
            }
        };
        (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).for_each(work);
        self.goes_on()
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// Waits for a condition that another thread brings about, or for the end.
    fn wait(&self, condition: impl Fn() -> bool) {
        for spin in 0.. {
            if condition() || !self.goes_on() {
                break;
            }
            if spin % SPINS == SPINS - 1 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// Sees to it that no thread waits for one that panicked.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
