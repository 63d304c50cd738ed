//! Bytes of a buffer of the device, and which of them anything has written.

use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU32};

/// What a new allocation holds in every byte.
const FILL: u32 = 0xcdcd_cdcd;

/// Every byte of a word.
const WHOLE: u8 = 0b1111;

/// Device memory of one buffer.
///
/// Blocks run on several host threads and may race as they may on a device, so words are atomics: no value is torn
/// within a word, and nothing more is promised between threads.
pub struct Allocation {
    words: Box<[AtomicU32]>,
    /// One bit for each byte of a word.
    written: Box<[AtomicU8]>,
    bytes: usize,
    /// Held by read-modify-writes of two words.
    wide: Mutex<()>,
}

impl Allocation {
    /// Memory that nothing has written.
    pub fn new(bytes: usize) -> Self {
        let words = bytes.div_ceil(4);
        Self {
            words: (0..words).map(|_| AtomicU32::new(FILL)).collect(),
            written: (0..words).map(|_| AtomicU8::new(0)).collect(),
            bytes,
            wide: Mutex::new(()),
        }
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes host bytes at an offset. The range lies within the allocation.
    pub fn upload(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        let (head, words) = bytes.split_at(bytes.len().min(at.wrapping_neg() % 4));
        if !head.is_empty() {
            self.set_part(at / 4, at % 4, head);
        }
        let first = (at + head.len()) / 4;
        let count = words.len() / 4;
        self.store(first * 4, &words[..count * 4]);
        let tail = &words[count * 4..];
        if !tail.is_empty() {
            self.set_part(first + count, 0, tail);
        }
    }

    /// Reads bytes at an offset, written or not. The range lies within the allocation.
    pub fn download(&self, at: usize, into: &mut [u8]) {
        self.check(at, into.len());
        let head = into.len().min(at.wrapping_neg() % 4);
        let (head, words) = into.split_at_mut(head);
        if !head.is_empty() {
            self.load(at, head);
        }
        let first = (at + head.len()) / 4;
        let (words, tail) = words.split_at_mut(words.len() / 4 * 4);
        self.load(first * 4, words);
        if !tail.is_empty() {
            self.load(first * 4 + words.len(), tail);
        }
    }

    /// Makes a range count as never written.
    pub fn forget(&self, at: usize, bytes: usize) {
        self.check(at, bytes);
        for word in at / 4..(at + bytes).div_ceil(4) {
            let first = at.saturating_sub(word * 4);
            let end = (at + bytes - word * 4).min(4);
            self.written[word].fetch_and(!mask(first, end - first), AcqRel);
        }
    }

    /// Copies a range of another allocation, with what is known of its bytes.
    pub fn copy_from(&self, at: usize, from: &Self, from_at: usize, bytes: usize) {
        self.check(at, bytes);
        from.check(from_at, bytes);
        if at.is_multiple_of(4) && from_at.is_multiple_of(4) {
            let whole = bytes / 4;
            for (to, from_word) in (at / 4..).zip(from_at / 4..from_at / 4 + whole) {
                self.words[to].store(from.words[from_word].load(Relaxed), Relaxed);
                self.written[to].store(from.written[from_word].load(Relaxed), Relaxed);
            }
            self.copy_bytes(at + whole * 4, from, from_at + whole * 4, bytes % 4);
        } else {
            self.copy_bytes(at, from, from_at, bytes);
        }
    }

    /// [`copy_from`](Self::copy_from), byte by byte.
    fn copy_bytes(&self, at: usize, from: &Self, from_at: usize, bytes: usize) {
        for i in 0..bytes {
            let mut byte = [0];
            from.download(from_at + i, &mut byte);
            self.upload(at + i, &byte);
            if from.written[(from_at + i) / 4].load(Relaxed) >> ((from_at + i) % 4) & 1 == 0 {
                self.forget(at + i, 1);
            }
        }
    }

    /// Reads bytes of one word, or whole words; false if some of them were never written.
    #[inline]
    pub(super) fn load(&self, at: usize, into: &mut [u8]) -> bool {
        let word = at / 4;
        if !into.len().is_multiple_of(4) {
            let value = self.words[word].load(Relaxed).to_le_bytes();
            into.copy_from_slice(&value[at % 4..at % 4 + into.len()]);
            let mask = mask(at % 4, into.len());
            return self.written[word].load(Relaxed) & mask == mask;
        }
        let count = into.len() / 4;
        let mut all = WHOLE;
        for written in &self.written[word..word + count] {
            all &= written.load(Relaxed);
        }
        for (chunk, value) in into.chunks_exact_mut(4).zip(&self.words[word..word + count]) {
            chunk.copy_from_slice(&value.load(Relaxed).to_le_bytes());
        }
        all == WHOLE
    }

    /// Writes bytes of one word, or whole words.
    #[inline]
    pub(super) fn store(&self, at: usize, bytes: &[u8]) {
        let word = at / 4;
        if !bytes.len().is_multiple_of(4) {
            return self.set_part(word, at % 4, bytes);
        }
        let count = bytes.len() / 4;
        for (chunk, value) in bytes.chunks_exact(4).zip(&self.words[word..word + count]) {
            value.store(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]), Relaxed);
        }
        for written in &self.written[word..word + count] {
            written.store(WHOLE, Relaxed);
        }
    }

    /// Replaces 4 or 8 aligned bytes by a function of them, indivisibly; what they were.
    pub(super) fn update(&self, at: usize, bytes: usize, op: &dyn Fn(u64) -> u64) -> u64 {
        let word = at / 4;
        if bytes == 4 {
            let replace = |old: u32| {
                let new = op(u64::from(old)) & u64::from(u32::MAX);
                Some(u32::try_from(new).expect("32 bits are kept"))
            };
            let old = self.words[word].fetch_update(SeqCst, SeqCst, replace);
            return u64::from(old.expect("the update never declines"));
        }
        let guard = self.wide.lock();
        let mut old = [0; 8];
        self.load(at, &mut old);
        let old = u64::from_le_bytes(old);
        self.store(at, &op(old).to_le_bytes());
        std::sync::atomic::fence(SeqCst);
        drop(guard);
        old
    }

    /// Offset of the first byte in a range that nothing has written.
    pub(super) fn first_unwritten(&self, at: usize, bytes: usize) -> Option<usize> {
        (at..at + bytes).find(|byte| self.written[byte / 4].load(Relaxed) >> (byte % 4) & 1 == 0)
    }

    /// Writes some bytes of one word, leaving the others to their writers.
    fn set_part(&self, word: usize, first: usize, bytes: &[u8]) {
        let mut value = [0; 4];
        value[first..first + bytes.len()].copy_from_slice(bytes);
        let mut keep = [0xff; 4];
        keep[first..first + bytes.len()].fill(0);
        let (value, keep) = (u32::from_le_bytes(value), u32::from_le_bytes(keep));
        self.words[word]
            .fetch_update(AcqRel, Relaxed, |old| Some(old & keep | value))
            .expect("the update never declines");
        self.written[word].fetch_or(mask(first, bytes.len()), AcqRel);
    }

    fn check(&self, at: usize, bytes: usize) {
        let end = at.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "{bytes} bytes at {at} do not lie in {}",
            self.bytes
        );
    }
}

/// Bits of `len` bytes of a word.
fn mask(first: usize, len: usize) -> u8 {
    ((1 << len) - 1) << first
}
