//! Encoder delay and length of the audio tracks of an MP4 file, from its edit lists.
//!
//! AAC in MP4 begins with the encoder's delay; the track's edit list (ISO 14496-12, 8.6.6) says where the presentation
//! starts in it and how long it is. The demuxer reads edit lists but does not apply or expose them, so this walks the
//! few boxes that are needed: moov / (mvhd, trak / (tkhd, edts / elst, mdia / mdhd)). A demuxer that trims by itself
//! would make it unnecessary.

use std::io::{self, Read, Seek, SeekFrom};

/// A track's single edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edit {
    /// First presented frame, in ticks of `media_scale`.
    pub media_time: u64,
    /// Ticks a second of the track.
    pub media_scale: u32,
    /// Length presented, in ticks of `movie_scale`; 0: to the end.
    pub duration: u64,
    /// Ticks a second of the file.
    pub movie_scale: u32,
}

/// The edit of track `track_id`, if the file has exactly one that plays at normal speed (empty edits before it, which
/// only shift the start against other tracks, are passed over).
pub(crate) fn edit(file: &mut (impl Read + Seek), track_id: u32) -> io::Result<Option<Edit>> {
    let length = file.seek(SeekFrom::End(0))?;
    let Some(moov) = find(file, 0, length, *b"moov")? else { return Ok(None) };
    let Some(movie_scale) = timescale(file, moov, *b"mvhd")? else { return Ok(None) };
    let mut at = moov.0;
    while let Some(trak) = find(file, at, moov.1, *b"trak")? {
        at = trak.1;
        if id(file, trak)? != Some(track_id) {
            continue;
        }
        let Some(mdia) = find(file, trak.0, trak.1, *b"mdia")? else { return Ok(None) };
        let Some(media_scale) = timescale(file, mdia, *b"mdhd")? else { return Ok(None) };
        let Some(edts) = find(file, trak.0, trak.1, *b"edts")? else { return Ok(None) };
        let Some(elst) = body(file, edts, *b"elst")? else { return Ok(None) };
        return Ok(single_edit(&elst).map(|(duration, media_time)| Edit {
            media_time,
            media_scale,
            duration,
            movie_scale,
        }));
    }
    Ok(None)
}

/// Start and end of a box's content.
type Span = (u64, u64);

/// The first box of this kind between two positions, as the span of its content.
fn find(file: &mut (impl Read + Seek), mut at: u64, end: u64, kind: [u8; 4]) -> io::Result<Option<Span>> {
    while at.saturating_add(8) <= end {
        file.seek(SeekFrom::Start(at))?;
        let mut header = [0; 8];
        file.read_exact(&mut header)?;
        let mut content = at + 8;
        let size = match be32(&header) {
            // To the end of the file.
            0 => end - at,
            // A 64-bit size follows.
            1 => {
                let mut large = [0; 8];
                file.read_exact(&mut large)?;
                content += 8;
                u64::from_be_bytes(large)
            }
            size => u64::from(size),
        };
        let Some(next) = at.checked_add(size).filter(|&next| next >= content && next <= end) else {
            return Ok(None);
        };
        if header[4..] == kind {
            return Ok(Some((content, next)));
        }
        at = next;
    }
    Ok(None)
}

/// The content of the first box of this kind inside `span`; the boxes asked for are small, and are read up to 64 kB.
fn body(file: &mut (impl Read + Seek), span: Span, kind: [u8; 4]) -> io::Result<Option<Vec<u8>>> {
    let Some((start, end)) = find(file, span.0, span.1, kind)? else { return Ok(None) };
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take((end - start).min(1 << 16)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// `timescale` of an mvhd or mdhd box: after two dates, of 32 bits in version 0 and 64 in version 1.
fn timescale(file: &mut (impl Read + Seek), span: Span, kind: [u8; 4]) -> io::Result<Option<u32>> {
    Ok(body(file, span, kind)?.and_then(|b| {
        let at = if *b.first()? == 1 { 20 } else { 12 };
        b.get(at..).filter(|b| b.len() >= 4).map(be32).filter(|&scale| scale > 0)
    }))
}

/// `track_ID` of a track's tkhd box, placed like a timescale.
fn id(file: &mut (impl Read + Seek), trak: Span) -> io::Result<Option<u32>> {
    timescale(file, trak, *b"tkhd")
}

/// (segment_duration, media_time) of an elst with one edit at rate 1, empty edits aside.
fn single_edit(elst: &[u8]) -> Option<(u64, u64)> {
    let version = *elst.first()?;
    let entries = elst.get(8..)?.chunks_exact(if version == 1 { 20 } else { 12 });
    let mut found = None;
    for entry in entries.take(usize::try_from(be32(elst.get(4..8)?)).ok()?) {
        let (duration, media_time, rate) = if version == 1 {
            (be64(entry), be64(&entry[8..]) as i64, be32(&entry[16..]))
        } else {
            (u64::from(be32(entry)), i64::from(be32(&entry[4..]) as i32), be32(&entry[8..]))
        };
        // media_time -1 is an empty edit.
        let Ok(media_time) = u64::try_from(media_time) else { continue };
        if found.is_some() || rate != 0x0001_0000 {
            return None;
        }
        found = Some((duration, media_time));
    }
    found
}

fn be32(b: &[u8]) -> u32 {
    u32::from_be_bytes([b[0], b[1], b[2], b[3]])
}

fn be64(b: &[u8]) -> u64 {
    u64::from(be32(b)) << 32 | u64::from(be32(&b[4..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(8 + content.len()).unwrap();
        [&size.to_be_bytes()[..], kind, content].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    fn track(id: u32, scale: u32, elst: &[u32]) -> Vec<u8> {
        let tkhd = boxed(b"tkhd", &words(&[0, 0, 0, id, 0, 99]));
        let edts = boxed(b"edts", &boxed(b"elst", &words(elst)));
        let mdia = boxed(b"mdia", &boxed(b"mdhd", &words(&[0, 0, 0, scale, 7])));
        boxed(b"trak", &[tkhd, edts, mdia].concat())
    }

    fn file(tracks: &[Vec<u8>]) -> Cursor<Vec<u8>> {
        let moov = [boxed(b"mvhd", &words(&[0, 0, 0, 1000, 5])), tracks.concat()].concat();
        Cursor::new([boxed(b"ftyp", b"M4A "), boxed(b"mdat", &[3; 21]), boxed(b"moov", &moov)].concat())
    }

    #[test]
    fn the_edit_of_the_asked_track_is_found_behind_an_empty_edit() {
        let mut f = file(&[
            track(4, 600, &[0, 1, 5, 6, 0x10000]),
            track(9, 44100, &[0, 2, 250, u32::MAX, 0x10000, 1500, 1024, 0x10000]),
        ]);
        let want = Edit { media_time: 1024, media_scale: 44100, duration: 1500, movie_scale: 1000 };
        assert_eq!(edit(&mut f, 9).unwrap(), Some(want));
    }

    #[test]
    fn two_edits_another_speed_and_a_missing_track_give_none() {
        for (tracks, why) in [
            (vec![track(1, 8000, &[0, 2, 5, 6, 0x10000, 5, 20, 0x10000])], "two edits"),
            (vec![track(1, 8000, &[0, 1, 5, 6, 0x8000])], "half speed"),
            (vec![track(2, 8000, &[0, 1, 5, 6, 0x10000])], "no track 1"),
            (vec![], "no track at all"),
        ] {
            assert_eq!(edit(&mut file(&tracks), 1).unwrap(), None, "{why}");
        }
    }

    #[test]
    fn boxes_that_lie_about_their_size_give_none() {
        let mut bytes = file(&[track(1, 8000, &[0, 1, 5, 6, 0x10000])]).into_inner();
        bytes[0..4].copy_from_slice(&[0xff; 4]);
        assert_eq!(edit(&mut Cursor::new(bytes), 1).unwrap(), None);
    }
}
