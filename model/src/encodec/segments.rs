//! How long audio is cut so that the local parts of the codec see bounded lengths, exactly.
//!
//! The convolutions before the encoder's LSTM and behind the decoder's reach a bounded distance. A segment is run with
//! a halo of frames on each side where the audio goes on; what its artificial edges spoil lies within the halo and is
//! dropped. At the true edges there is no halo, and padding acts as it does on the whole.

use super::config::EncodecConfig;
use super::graph::{padding, trimming};
use super::weights::{DecoderWeights, EncoderWeights, Residual};

/// A stretch of frames to compute, and the longer one to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First frame kept.
    pub first: usize,
    /// Frames kept.
    pub frames: usize,
    /// First frame run.
    pub run_first: usize,
    /// Frames run.
    pub run_frames: usize,
}

/// Cuts `frames` frames into segments of at most `longest`, with `halo` frames around.
pub(crate) fn segments(frames: usize, longest: usize, halo: usize) -> Vec<Segment> {
    let longest = longest.max(1);
    let segment = |first: usize| {
        let kept = longest.min(frames - first);
        let run_first = first.saturating_sub(halo);
        let run_end = (first + kept + halo).min(frames);
        Segment { first, frames: kept, run_first, run_frames: run_end - run_first }
    };
    (0..frames).step_by(longest).map(segment).collect()
}

/// How far a segment's artificial edges are felt, layer by layer.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Values spoilt at the left edge.
    left: usize,
    /// Values spoilt at the right edge.
    right: usize,
    /// Values of one frame.
    per_frame: usize,
    /// Frames of halo needed so far.
    frames: usize,
}

impl Reach {
    fn new(per_frame: usize) -> Self {
        Self { left: 0, right: 0, per_frame, frames: 0 }
    }

    /// A halo of at least so many values is needed here.
    fn need(self, values: usize) -> Self {
        Self { frames: self.frames.max(values.div_ceil(self.per_frame)), ..self }
    }

    /// Behind a convolution: an output is spoilt if it reads a spoilt or a padded value.
    fn conv(self, (pad_left, pad_right): (usize, usize), stride: usize) -> Self {
        // reflection at the one, true, edge reads so far back: not as far as to what the other edge spoils. The last of
        // the audio is padded by up to one stride more
        let reflected = pad_left.max(pad_right + stride);
        let needed = self.need(self.left.max(self.right) + reflected + 1);
        Self {
            left: (self.left + pad_left).div_ceil(stride),
            right: (self.right + pad_right).div_ceil(stride),
            per_frame: self.per_frame / stride,
            ..needed
        }
    }

    /// Behind a residual block, whose skip path spoils no more than its convolutions.
    fn residual(self, config: &EncodecConfig, block: &Residual) -> Self {
        self.conv(padding(config, &block.first), 1).conv(padding(config, &block.second), 1)
    }

    /// Behind a transposed convolution: raw output `j * stride + p` reads inputs `j - (taps - 1) ..= j`.
    fn conv_transpose(self, kernel: usize, stride: usize, trim_left: usize) -> Self {
        let taps = kernel.div_ceil(stride);
        Self {
            left: ((self.left + taps - 1) * stride).saturating_sub(trim_left),
            right: self.right * stride + trim_left,
            per_frame: self.per_frame * stride,
            ..self
        }
    }

    fn halo(self) -> usize {
        self.need(self.left.max(self.right)).frames
    }
}

/// Frames of halo that the encoder's local part needs.
pub(crate) fn encoder_halo(config: &EncodecConfig, w: &EncoderWeights) -> usize {
    let mut reach = Reach::new(config.hop_length()).conv(padding(config, &w.first), 1);
    for stage in &w.stages {
        for block in &stage.residuals {
            reach = reach.residual(config, block);
        }
        reach = reach.conv(padding(config, &stage.resample), stage.resample.stride);
    }
    reach.halo()
}

/// Frames of halo that the decoder's local part needs.
pub(crate) fn decoder_halo(config: &EncodecConfig, w: &DecoderWeights) -> usize {
    let mut reach = Reach::new(1);
    for stage in &w.stages {
        let up = &stage.resample;
        reach = reach.conv_transpose(up.kernel, up.stride, trimming(config, up).0);
        for block in &stage.residuals {
            reach = reach.residual(config, block);
        }
    }
    reach.conv(padding(config, &w.last), 1).halo()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_frame_once_and_stay_inside() {
        for (frames, longest, halo) in
            [(1, 7, 3), (7, 7, 3), (8, 7, 3), (100, 7, 3), (100, 1, 0), (23, 50, 5)]
        {
            let cut = segments(frames, longest, halo);
            let mut next = 0;
            for s in cut {
                assert_eq!(s.first, next, "frames {frames}, longest {longest}, halo {halo}");
                assert!(s.run_first == 0 || s.first - s.run_first == halo);
                let run_end = s.run_first + s.run_frames;
                assert!(run_end == frames || run_end == s.first + s.frames + halo);
                next += s.frames;
            }
            assert_eq!(next, frames);
        }
    }

    #[test]
    fn spoilt_outputs_of_a_strided_convolution() {
        // kernel 8, stride 4, padding 2 and 2: output o reads inputs 4 o - 2 .. 4 o + 5. Of 16 inputs, outputs 0 (reads
        // -2) and 3 (reads 17) touch padding
        let reach = Reach::new(16).conv((2, 2), 4);
        assert_eq!((reach.left, reach.right, reach.per_frame), (1, 1, 4));
        // with 3 spoilt inputs on the left, output 1 reads input 2 too
        let reach = Reach { left: 3, ..Reach::new(16) }.conv((2, 2), 4);
        assert_eq!((reach.left, reach.right), (2, 1));
        // 3 spoilt, and up to 2 + 4 reflected: 10 values of 16 a frame
        assert_eq!(reach.frames, 1);
    }

    #[test]
    fn spoilt_outputs_of_a_transposed_convolution() {
        // kernel 8, stride 4, trim 2: output o (raw o + 2) reads inputs (raw / 4) - 1 and raw / 4. Raw 2, 3 read input -1;
        // of 3 inputs, raw 12 and 13 (outputs 10 and 11) read input 3
        let reach = Reach::new(3).conv_transpose(8, 4, 2);
        assert_eq!((reach.left, reach.right, reach.per_frame), (2, 2, 12));
    }
}
