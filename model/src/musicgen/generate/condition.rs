//! What music is conditioned by beside the codes before it.

use super::Text;
use crate::error::{ModelError, Result};

/// A melody as MusicGen Melody hears it: one pitch class for each frame of chroma, of a mix or of a stem.
#[derive(Clone, Debug, PartialEq)]
pub struct Melody {
    classes: Vec<u8>,
    frames_per_second: f64,
}

impl Melody {
    /// The pitch classes, 0 for C, and how many of them make a second.
    ///
    /// # Errors
    /// No frame, or a rate that is not a number above 0.
    pub fn new(classes: Vec<u8>, frames_per_second: f64) -> Result<Self> {
        let bad = |found: String, expected: String| {
            Err(ModelError::Argument { argument: "melody", found, expected })
        };
        if classes.is_empty() {
            return bad("0 frames".into(), "at least one frame of chroma".into());
        }
        if !(frames_per_second.is_finite() && frames_per_second > 0.0) {
            return bad(format!("{frames_per_second} frames a second"), "a rate above 0".into());
        }
        Ok(Self { classes, frames_per_second })
    }

    /// The pitch classes, frame by frame.
    pub fn classes(&self) -> &[u8] {
        &self.classes
    }

    /// `frames` pitch classes from the frame nearest to `seconds` on; behind its end the melody begins again.
    pub fn from(&self, seconds: f64, frames: usize) -> impl Iterator<Item = u8> {
        // beyond 2^64 frames there is no music
        let first = (seconds * self.frames_per_second).round() as usize % self.classes.len();
        self.classes.iter().copied().cycle().skip(first).take(frames)
    }

    /// Refuses classes that a model of `classes` classes has not.
    pub(crate) fn check(&self, classes: usize) -> Result<()> {
        match self.classes.iter().position(|&class| usize::from(class) >= classes) {
            None => Ok(()),
            Some(at) => Err(ModelError::Argument {
                argument: "melody",
                found: format!("pitch class {} at frame {at}", self.classes[at]),
                expected: format!("less than {classes} (`num_chroma`)"),
            }),
        }
    }
}

/// What one clip or take is conditioned by. Nothing at all is what the unconditional half of guidance hears.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition<'a> {
    /// What it is told to be.
    pub text: Option<&'a Text>,
    /// What it is to follow; only decoders of MusicGen Melody can.
    pub melody: Option<&'a Melody>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn melodies_go_round() {
        let melody = Melody::new(vec![3, 7, 11], 2.0).unwrap();
        assert_eq!(melody.from(0.0, 5).collect::<Vec<_>>(), [3, 7, 11, 3, 7]);
        assert_eq!(melody.from(0.7, 2).collect::<Vec<_>>(), [7, 11]);
        assert_eq!(melody.from(10.0, 3).collect::<Vec<_>>(), [11, 3, 7]);
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let text = |classes, rate| Melody::new(classes, rate).unwrap_err().to_string();
        assert_eq!(text(vec![], 1.0), "`melody` is 0 frames, expected at least one frame of chroma");
        assert_eq!(text(vec![1], f64::NAN), "`melody` is NaN frames a second, expected a rate above 0");
        assert_eq!(text(vec![1], 0.0), "`melody` is 0 frames a second, expected a rate above 0");
        assert_eq!(
            Melody::new(vec![1, 12], 1.0).unwrap().check(12).unwrap_err().to_string(),
            "`melody` is pitch class 12 at frame 1, expected less than 12 (`num_chroma`)"
        );
    }
}
