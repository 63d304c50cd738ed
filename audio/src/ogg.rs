//! Whether an Ogg file ends where its stream says it ends.
//!
//! The demuxer takes the last page it finds as the end, so a cut file looks like a shorter one. The pages themselves
//! tell: the last one carries the end-of-stream flag (RFC 3533, section 6).

use std::io::{self, Read, Seek, SeekFrom};

/// The largest page: a 27-byte header, 255 lacing values, 255 segments of 255 bytes.
const LARGEST_PAGE: u64 = 27 + 255 + 255 * 255;

/// What is wrong with the end of an Ogg file, or none: its last page is whole and flagged as the last.
pub(crate) fn broken_tail(file: &mut (impl Read + Seek)) -> io::Result<Option<&'static str>> {
    let length = file.seek(SeekFrom::End(0))?;
    // Two pages: wherever the file ends, the last page begins in here.
    file.seek(SeekFrom::Start(length.saturating_sub(2 * LARGEST_PAGE)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let last = tail.windows(4).rposition(|w| w == b"OggS");
    Ok(match last.map(|at| &tail[at..]) {
        None => Some("the last 130 kB hold no page"),
        Some(page) if !is_whole(page) => Some("the last page is cut"),
        Some(page) if page[5] & 0x04 == 0 => Some("the last page is not flagged as the end of the stream"),
        Some(_) => None,
    })
}

/// Whether a page's header, lacing values and segments are all there.
fn is_whole(page: &[u8]) -> bool {
    let Some(&segments) = page.get(26) else { return false };
    let header = 27 + usize::from(segments);
    let Some(lacing) = page.get(27..header) else { return false };
    page.len() >= header + lacing.iter().map(|&n| usize::from(n)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn page(flags: u8, body: &[u8]) -> Vec<u8> {
        let mut page = b"OggS\0".to_vec();
        page.push(flags);
        page.extend_from_slice(&[0; 20]);
        page.push(1);
        page.push(body.len() as u8);
        page.extend_from_slice(body);
        page
    }

    #[test]
    fn a_whole_flagged_page_is_a_good_end() {
        let bytes = [page(2, b"first"), page(4, b"last")].concat();
        assert_eq!(broken_tail(&mut Cursor::new(bytes)).unwrap(), None);
    }

    #[test]
    fn a_cut_body_a_cut_header_and_a_missing_flag_are_told_apart() {
        let whole = [page(2, b"first"), page(4, b"last")].concat();
        let cut_body = whole[..whole.len() - 1].to_vec();
        let cut_header = whole[..whole.len() - 20].to_vec();
        let unflagged = [page(2, b"first"), page(0, b"next")].concat();
        for (bytes, want) in [
            (cut_body, "the last page is cut"),
            (cut_header, "the last page is cut"),
            (unflagged, "the last page is not flagged as the end of the stream"),
            (vec![7; 40], "the last 130 kB hold no page"),
        ] {
            assert_eq!(broken_tail(&mut Cursor::new(bytes)).unwrap(), Some(want));
        }
    }
}
