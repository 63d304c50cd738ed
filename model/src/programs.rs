//! Programs kept for replay.

use crate::error::Result;
use auscult_runtime::Program;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Programs held at a time; each holds the activations of its shape.
const KEPT: usize = 4;

/// A program that one caller at a time runs.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Program>>);

impl Shared {
    /// Waits until nobody else runs it. A run that panicked left nothing that the next one does not overwrite.
    pub fn lock(&self) -> MutexGuard<'_, Program> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs used last, by shape.
pub(crate) struct Programs<K>(Mutex<Vec<(K, Shared)>>);

impl<K: PartialEq> Programs<K> {
    pub fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The program for `key`, made if it is not there; the one unused for longest makes room.
    pub fn get(&self, key: K, make: impl FnOnce() -> Result<Program>) -> Result<Shared> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = match kept.iter().position(|(k, _)| *k == key) {
            Some(at) => kept.remove(at).1,
            None => {
                if kept.len() == KEPT {
                    kept.remove(0);
                }
                Shared(Arc::new(Mutex::new(make()?)))
            }
        };
        kept.push((key, shared.clone()));
        Ok(shared)
    }

    /// Lets go of all of them.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
