//! Encoder delay and padding: what each container declares, who removes it, and how long the rest must be.
//!
//! symphonia's MP3 and Vorbis decoders trim by themselves; for MP4, CAF and Matroska its demuxers do not pass the
//! trimming on, so it is done here on the decoded frames.

use std::fs::File;
use std::path::Path;

use symphonia::core::formats::{FormatReader, Track};
use symphonia::core::meta::RawValue;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use crate::source::Gapless;
use crate::{AudioError, mp4, ogg};

/// How one track is trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trim {
    /// For the record.
    pub gapless: Gapless,
    /// Whether the codec's decoder trims.
    pub by_decoder: bool,
    /// Frames after trimming that must come, give or take `tolerance`; none: nothing binding is declared.
    pub declared: Option<u64>,
    /// Frames that may be missing from `declared` without the file being cut.
    pub tolerance: u64,
    /// Frames after trimming, estimated.
    pub estimated: Option<u64>,
    /// Frames still to be dropped at the start.
    skip: u64,
    /// Frames still to be passed on; none: all.
    left: Option<u64>,
    /// The track's time base, while the first packet's negative time may still say how much to drop.
    skip_negative_time: Option<TimeBase>,
}

impl Trim {
    fn untouched(declared: Option<u64>) -> Self {
        Trim {
            gapless: Gapless::NoneDeclared,
            by_decoder: true,
            declared,
            tolerance: 0,
            estimated: None,
            skip: 0,
            left: None,
            skip_negative_time: None,
        }
    }

    /// Drops `start` frames and whatever follows `length` frames.
    fn here(start: u64, length: Option<u64>, total: Option<u64>, declared_by: &'static str) -> Self {
        let end = total.zip(length).map(|(total, length)| total.saturating_sub(start + length));
        let mut trim = Trim::untouched(length);
        if start > 0 || end.is_some_and(|end| end > 0) {
            trim.gapless = Gapless::Trimmed { start, end, declared_by };
        }
        trim.skip = start;
        trim.left = length;
        trim
    }

    /// Matroska: the codec delay shows as a negative time of the first packet.
    pub fn first_packet(&mut self, packet: &Packet, sample_rate: u32) {
        if let Some(base) = self.skip_negative_time.take()
            && packet.pts.is_negative()
        {
            let ticks = packet.pts.get().unsigned_abs();
            self.skip = scale(ticks, base.numer.get(), sample_rate, base.denom.get());
            let declared_by = "codec delay, to the container's tick";
            self.gapless = Gapless::Trimmed { start: self.skip, end: None, declared_by };
        }
    }

    /// Trims one block in place.
    pub fn apply(&mut self, planes: &mut [Vec<f32>]) {
        let frames = planes.first().map_or(0, Vec::len) as u64;
        let skip = self.skip.min(frames);
        let keep = self.left.map_or(frames - skip, |left| left.min(frames - skip));
        self.skip -= skip;
        self.left = self.left.map(|left| left - keep);
        for plane in planes {
            // Both are at most the block's length, which is a usize.
            plane.truncate((skip + keep) as usize);
            plane.drain(..skip as usize);
        }
    }

    /// Whether all frames that were declared have been passed on, so that the rest is padding.
    pub fn complete(&self) -> bool {
        self.left == Some(0)
    }
}

/// `n * numer * rate / denom`, rounded.
pub(crate) fn scale(n: u64, numer: u32, rate: u32, denom: u32) -> u64 {
    let exact = u128::from(n) * u128::from(numer) * u128::from(rate);
    u64::try_from((exact + u128::from(denom) / 2) / u128::from(denom)).unwrap_or(u64::MAX)
}

/// Reads what the container declares.
pub(crate) fn plan(path: &Path, format: &mut dyn FormatReader, track: &Track) -> Result<Trim, AudioError> {
    let codec = track.codec_params.as_ref().and_then(|p| p.audio());
    let rate = codec.and_then(|p| p.sample_rate).unwrap_or(0);
    let (delay, padding) = (u64::from(track.delay.unwrap_or(0)), u64::from(track.padding.unwrap_or(0)));
    // A count of 0 is how encoders that cannot go back to the header leave it (FLAC says so: 0 is unknown).
    let count = track.num_frames.filter(|&n| n > 0);
    Ok(match format.format_info().short_name {
        "mp1" | "mp2" | "mp3" if track.delay.is_none() => {
            // Without a tag the count is a guess from the bit rate, and the demuxer would trim to it.
            Trim { by_decoder: false, estimated: count, ..Trim::untouched(None) }
        }
        "mp1" | "mp2" | "mp3" => {
            let mut trim = Trim::untouched(count);
            // Some encoders count the tag's own frame, some also one more that they never write.
            trim.tolerance = 2 * 1152;
            if delay + padding > 0 {
                trim.gapless = Gapless::Trimmed { start: delay, end: Some(padding), declared_by: "LAME tag" };
            }
            trim
        }
        "ogg" => {
            // The last granule position counts from time 0; a stream cut from a longer one starts later.
            let before = u64::try_from(track.start_ts.get()).unwrap_or(0);
            let mut trim = Trim::untouched(count.map(|n| n.saturating_sub(before)));
            // The largest Vorbis block: its first half only primes the decoder.
            trim.tolerance = 8192;
            if delay + padding > 0 {
                let declared_by = "Ogg granule position";
                trim.gapless = Gapless::Trimmed { start: delay, end: Some(padding), declared_by };
            }
            trim
        }
        "isomp4" => {
            let ticks = track.num_frames;
            let base = track.time_base.map_or((1, rate.max(1)), |b| (b.numer.get(), b.denom.get()));
            let total = ticks.map(|n| scale(n, base.0, rate, base.1)).filter(|&n| n > 0);
            let mut trim = mp4_trim(path, format, track.id, rate, total)?;
            // Rounding of the movie's ticks, and encoders that drop the last, silent packet.
            trim.tolerance = 1024;
            trim
        }
        "caf" => {
            let total = count.map(|n| n + delay + padding);
            let mut trim = Trim::here(delay, count, total, "CAF packet table");
            // Some encoders (ffmpeg) count the last packet as a full one.
            trim.tolerance = codec.and_then(|p| p.max_frames_per_packet).unwrap_or(0);
            trim
        }
        "aac" => Trim { estimated: count, ..Trim::untouched(None) },
        "matroska" => {
            let media = format.media_info();
            let seconds = media.time_base.zip(media.duration).map(|(base, duration)| {
                duration.get() as f64 * f64::from(base.numer.get()) / f64::from(base.denom.get())
            });
            let estimated = seconds.map(|s| (s * f64::from(rate)).round() as u64);
            Trim { skip_negative_time: track.time_base, estimated, ..Trim::untouched(None) }
        }
        _ => {
            let mut trim = Trim::untouched(count);
            // ADPCM comes in blocks, of which the last may be short.
            trim.tolerance = codec.and_then(|p| p.frames_per_block).map_or(0, |n| n.saturating_sub(1));
            trim
        }
    })
}

/// The MP4 track's iTunSMPB comment (exact to the frame), else its edit list, else all of it.
fn mp4_trim(
    path: &Path,
    format: &mut dyn FormatReader,
    track_id: u32,
    rate: u32,
    total: Option<u64>,
) -> Result<Trim, AudioError> {
    if let Some((delay, length)) = itunes_gapless(format) {
        return Ok(Trim::here(delay, Some(length), total, "iTunSMPB"));
    }
    let mut file = File::open(path).map_err(|source| AudioError::Open { path: path.to_owned(), source })?;
    let edit = mp4::edit(&mut file, track_id)
        .map_err(|source| AudioError::Read { path: path.to_owned(), source })?;
    let Some(edit) = edit else { return Ok(Trim::here(0, total, total, "track duration")) };
    let start = scale(edit.media_time, 1, rate, edit.media_scale);
    let rest = total.map(|n| n.saturating_sub(start));
    let presented = scale(edit.duration, 1, rate, edit.movie_scale);
    // The edit's length is rounded to the movie's ticks, often milliseconds: within a tick of the media's own length
    // the media is right.
    let tick = u64::from(rate.div_ceil(edit.movie_scale));
    let length = match rest {
        Some(rest) if edit.duration == 0 || presented + tick >= rest => Some(rest),
        _ if edit.duration == 0 => None,
        _ => Some(presented),
    };
    Ok(Trim::here(start, length, total, "edit list"))
}

/// (delay, length) in frames from an iTunSMPB comment: hexadecimal words, of which the second is the delay, the third
/// the padding and the fourth the length.
fn itunes_gapless(format: &mut dyn FormatReader) -> Option<(u64, u64)> {
    let mut metadata = format.metadata();
    let revision = metadata.skip_to_latest()?;
    let tag = revision.media.tags.iter().find(|tag| tag.raw.key.contains("iTunSMPB"))?;
    let RawValue::String(text) = &tag.raw.value else { return None };
    parse_itunes_gapless(text)
}

fn parse_itunes_gapless(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_whitespace().map(|word| u64::from_str_radix(word, 16).ok());
    let (delay, _padding, length) = (words.nth(1)??, words.next()??, words.next()??);
    (length > 0).then_some((delay, length))
}

/// What is wrong with an Ogg file's last page, if anything.
pub(crate) fn ogg_tail(path: &Path) -> Result<Option<String>, AudioError> {
    let mut file = File::open(path).map_err(|source| AudioError::Open { path: path.to_owned(), source })?;
    ogg::broken_tail(&mut file)
        .map(|found| found.map(str::to_owned))
        .map_err(|source| AudioError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_trimmed_at_both_ends_and_across_blocks() {
        let mut trim = Trim::here(5, Some(4), Some(12), "test");
        let mut given = Vec::new();
        for block in [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [9.0, 10.0, 11.0]] {
            let mut planes = vec![block.to_vec(), block.map(|x| -x).to_vec()];
            trim.apply(&mut planes);
            assert!(planes[0].iter().zip(&planes[1]).all(|(a, b)| *a == -*b));
            given.extend_from_slice(&planes[0]);
        }
        assert_eq!(given, [5.0, 6.0, 7.0, 8.0]);
        assert!(trim.complete());
        let want = Gapless::Trimmed { start: 5, end: Some(3), declared_by: "test" };
        assert_eq!(trim.gapless, want);
    }

    #[test]
    fn itunes_comments_are_read_and_nonsense_is_not() {
        let text = " 00000000 00000840 000001CA 00000000003F31F6 00000000 00000000";
        assert_eq!(parse_itunes_gapless(text), Some((0x840, 0x3f_31f6)));
        for (text, why) in [
            ("00000000 00000840", "too few words"),
            ("00000000 xyz 000001CA 00000000003F31F6", "not hexadecimal"),
            ("00000000 00000840 000001CA 0000000000000000", "no length"),
        ] {
            assert_eq!(parse_itunes_gapless(text), None, "{why}");
        }
    }

    #[test]
    fn ticks_become_frames_rounded() {
        assert_eq!(scale(1000, 1, 44_100, 1000), 44_100);
        assert_eq!(scale(23, 1, 44_100, 1000), 1014); // 1014.3
        assert_eq!(scale(u64::MAX, u32::MAX, u32::MAX, 1), u64::MAX);
    }
}
