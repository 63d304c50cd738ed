//! Where a position of the decoder lies in time.
//!
//! MusicGen reads codes through a delay pattern that opens with a column of special tokens. Of the pattern's steps those
//! are kept at which the first codebook still speaks: one more than there are frames. Position 0 is the special column;
//! at position `s >= 1` codebook `q` holds frame `s - 1 - q` (audiocraft `DelayedPatternProvider`).

/// Positions kept for `frames` frames: the special column, then one for each frame.
pub fn positions(frames: usize) -> usize {
    frames + 1
}

/// Steps of the whole delay pattern for `frames` frames whose last codebook lags by `longest_delay` steps.
pub fn pattern_steps(frames: usize, longest_delay: usize) -> usize {
    positions(frames) + longest_delay
}

/// Frames that `samples` samples encode to: `ceil(samples / hop)`.
pub fn frames(samples: usize, hop: usize) -> usize {
    samples.div_ceil(hop)
}

/// Time of position `s` in seconds from the start of its clip: `(s - 1) / frame_rate`, so -1 frame for position 0.
pub fn position_seconds(position: usize, frame_rate: f64) -> f64 {
    (position as f64 - 1.0) / frame_rate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_and_thirty_seconds_of_musicgen() {
        // 32 kHz, 640 samples a frame, 4 codebooks one step apart
        for (seconds, kept, steps) in [(10, 501, 504), (30, 1501, 1504)] {
            let frames = frames(seconds * 32_000, 640);
            assert_eq!((positions(frames), pattern_steps(frames, 3)), (kept, steps), "{seconds} s");
        }
        assert_eq!(frames(1, 640), 1, "one sample is a frame");
        assert_eq!(frames(641, 640), 2, "one sample past a frame starts the next");
    }

    #[test]
    fn position_one_is_time_zero() {
        assert_eq!(position_seconds(1, 50.0), 0.0);
        assert_eq!(position_seconds(0, 50.0), -0.02);
        assert_eq!(position_seconds(500, 50.0), 9.98);
        assert_eq!(position_seconds(501, 50.0), 10.0);
    }
}
