//! The batch that would fit where one does not.

use crate::error::{ModelError, Result};
use auscult_runtime::{DeviceError, RunError};

/// The largest batch found to fit where one of `clips` does not: what the share of memory that can be had suggests, halved
/// until `fits` says so; 0 if nothing does.
pub fn largest_batch(clips: usize, refused: &DeviceError, mut fits: impl FnMut(usize) -> bool) -> usize {
    let share = match refused {
        // memory grows with the clips
        DeviceError::OutOfMemory { asked, free: Some(free), .. } if free < asked => {
            (clips as f64 * (*free as f64 / *asked as f64)) as usize
        }
        _ => clips / 2,
    };
    let mut batch = share.min(clips.saturating_sub(1));
    while batch > 0 && !fits(batch) {
        batch /= 2;
    }
    batch
}

/// The device's refusal if a result is one of memory, else the result.
pub(crate) fn memory<T>(result: Result<T>) -> Result<Result<T>, DeviceError> {
    match result {
        Err(
            ModelError::Device(refused @ DeviceError::OutOfMemory { .. })
            | ModelError::Run(RunError::Device(refused @ DeviceError::OutOfMemory { .. })),
        ) => Err(refused),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_until_they_fit() {
        let refused = |free| DeviceError::OutOfMemory {
            device: "small".into(),
            asked: 1000,
            free,
            detail: String::new(),
        };
        assert_eq!(largest_batch(64, &refused(Some(500)), |_| true), 32, "the share that is free");
        assert_eq!(largest_batch(64, &refused(Some(500)), |batch| batch <= 9), 8, "halved until it fits");
        assert_eq!(largest_batch(64, &refused(None), |_| true), 32, "half, where nobody says what is free");
        assert_eq!(
            largest_batch(64, &refused(Some(2000)), |_| true),
            32,
            "half, where free memory is in parts"
        );
        assert_eq!(largest_batch(64, &refused(Some(999)), |_| true), 63, "never what was refused");
        assert_eq!(largest_batch(64, &refused(Some(500)), |_| false), 0);
        assert_eq!(largest_batch(1, &refused(None), |_| true), 0);
    }
}
