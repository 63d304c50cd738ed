//! Buffers of the device, and the two ways across: writes in bounded parts, reads through a buffer that is kept.

use super::device::Gpu;
use crate::backend::DeviceError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Bytes that go across at once. Two such parts are under way at most, so weights need no second copy on the host.
const PART: usize = 32 << 20;

/// Bindings shorter than an element of the widest type in use (`vec4<f32>`) are refused, so buffers are never shorter.
pub(super) const GRAIN: usize = 16;

/// `value` rounded up to a multiple of `to`.
pub(super) fn round_up(value: usize, to: usize) -> usize {
    value.div_ceil(to) * to
}

/// Memory of the device: as long as asked for, rounded up to [`GRAIN`].
pub(super) struct Memory {
    pub raw: wgpu::Buffer,
    /// Never used twice in this process.
    pub number: u64,
    dead: Arc<Mutex<Vec<u64>>>,
}

impl Memory {
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self, DeviceError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let out_of_memory = || DeviceError::OutOfMemory {
            device: gpu.id.clone(),
            asked: bytes,
            free: None,
            detail: format!("; the adapter's buffers hold at most {} bytes", gpu.max_buffer),
        };
        if bytes > gpu.max_buffer / GRAIN * GRAIN {
            return Err(out_of_memory());
        }
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: round_up(bytes.max(1), GRAIN) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let raw = gpu.scoped(|| gpu.device.create_buffer(&descriptor)).map_err(|error| match error {
            wgpu::Error::OutOfMemory { .. } => out_of_memory(),
            other => gpu.failed(format!("a buffer of {bytes} bytes was refused: {other}")),
        })?;
        gpu.check()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { raw, number, dead: Arc::clone(&gpu.dead) })
    }

    /// Whether it was made by this device.
    pub fn is_of(&self, gpu: &Gpu) -> bool {
        Arc::ptr_eq(&self.dead, &gpu.dead)
    }
}

/// Writes, in parts of which two are under way at most, however many buffers they go to.
#[derive(Default)]
pub(super) struct Uploads {
    /// Bytes written since the last submission made here.
    pending: usize,
    before: Option<wgpu::SubmissionIndex>,
}

impl Uploads {
    /// Writes at a multiple of 4, after everything submitted. A length that is none is filled up with zeros, which the
    /// caller allows.
    pub fn write(&mut self, gpu: &Gpu, to: &Memory, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        for (i, part) in bytes.chunks(PART).enumerate() {
            let at = (offset + i * PART) as u64;
            let (words, rest) = part.split_at(part.len() / 4 * 4);
            // writes go with the next submission, whoever makes it
            let full = self.pending + part.len() >= PART;
            let submission = gpu.attempt("upload", || {
                gpu.queue.write_buffer(&to.raw, at, words);
                if !rest.is_empty() {
                    let mut word = [0; 4];
                    word[..rest.len()].copy_from_slice(rest);
                    gpu.queue.write_buffer(&to.raw, at + words.len() as u64, &word);
                }
                full.then(|| gpu.queue.submit([]))
            })?;
            self.pending = if full { 0 } else { self.pending + part.len() };
            if full && let Some(before) = std::mem::replace(&mut self.before, submission) {
                gpu.wait(Some(before))?;
            }
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

/// A buffer that the host can read, kept from one read to the next.
#[derive(Default)]
pub(super) struct Staging {
    buffer: Option<wgpu::Buffer>,
}

impl Staging {
    /// Reads a range of a buffer, whatever its alignment, after everything submitted.
    pub fn read(
        &mut self,
        gpu: &Gpu,
        from: &wgpu::Buffer,
        offset: usize,
        bytes: usize,
    ) -> Result<Vec<u8>, DeviceError> {
        let mut read = Vec::new();
        read.try_reserve_exact(bytes).map_err(|e| gpu.failed(format!("download: no host memory: {e}")))?;
        let end = offset + bytes;
        let mut at = offset / 4 * 4;
        while at < end {
            let length = (round_up(end, 4) - at).min(PART);
            let staging = self.at_least(gpu, length)?;
            let (said, answer) = mpsc::channel();
            let submission = gpu.attempt("download", || {
                let mut encoder =
                    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                encoder.copy_buffer_to_buffer(from, at as u64, &staging, 0, length as u64);
                let submission = gpu.queue.submit([encoder.finish()]);
                // the receiver lives until the answer is here
                staging.map_async(wgpu::MapMode::Read, 0..length as u64, move |result| {
                    said.send(result).unwrap_or(())
                });
                submission
            })?;
            gpu.wait(Some(submission))?;
            let kept = offset.max(at) - at..end.min(at + length) - at;
            take_mapped(gpu, &staging, &answer, length, |view| read.extend_from_slice(&view[kept]))?;
            staging.unmap();
            self.buffer = Some(staging);
            at += length;
        }
        Ok(read)
    }

    /// Takes the buffer that is kept if it is long enough. It is put back only when a read went well.
    fn at_least(&mut self, gpu: &Gpu, length: usize) -> Result<wgpu::Buffer, DeviceError> {
        if let Some(kept) = self.buffer.take().filter(|kept| kept.size() >= length as u64) {
            return Ok(kept);
        }
        gpu.attempt("download", || gpu.device.create_buffer(&readable(length.next_power_of_two().max(4096))))
    }
}

/// A buffer that the host can read.
fn readable(bytes: usize) -> wgpu::BufferDescriptor<'static> {
    wgpu::BufferDescriptor {
        label: Some("staging"),
        size: bytes as u64,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    }
}

/// What a device says of a buffer that it was to hand over.
type Answer = mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>;

/// Longest wait for an answer to work that is done. Another thread that waits for the device may be the one to pass it on.
const ANSWER: Duration = Duration::from_secs(10);

/// Shows `to` the first bytes of a buffer whose mapping was asked for in a submission that is done.
fn take_mapped(
    gpu: &Gpu,
    staging: &wgpu::Buffer,
    answer: &Answer,
    length: usize,
    to: impl FnOnce(&[u8]),
) -> Result<(), DeviceError> {
    if !matches!(answer.recv_timeout(ANSWER), Ok(Ok(()))) {
        return Err(gpu.failed("download: the device did not hand the bytes over"));
    }
    let view = staging.get_mapped_range(0..length as u64);
    let view = view.map_err(|error| gpu.failed(format!("download: {error}")))?;
    to(&view);
    Ok(())
}

/// Bytes on their way to the host, in buffers of their own.
pub(super) struct Arriving {
    parts: Vec<(wgpu::Buffer, Answer)>,
    submission: wgpu::SubmissionIndex,
    /// Bytes in front of those that were asked for, and how many these are.
    skip: usize,
    bytes: usize,
}

impl Arriving {
    /// Asks for a range of a buffer, whatever its alignment, after everything submitted; `None` where there is no memory for it
    /// beside what is there.
    pub fn start(
        gpu: &Gpu,
        from: &wgpu::Buffer,
        offset: usize,
        bytes: usize,
    ) -> Result<Option<Self>, DeviceError> {
        let first = offset / 4 * 4;
        let words = round_up(offset + bytes, 4) - first;
        let lengths: Vec<usize> = (0..words).step_by(PART).map(|at| PART.min(words - at)).collect();
        let buffers = gpu.scoped(|| {
            lengths.iter().map(|&length| gpu.device.create_buffer(&readable(length))).collect::<Vec<_>>()
        });
        let buffers = match buffers {
            Ok(buffers) => buffers,
            Err(wgpu::Error::OutOfMemory { .. }) => return Ok(None),
            Err(other) => return Err(gpu.failed(format!("download: {other}"))),
        };
        let (parts, submission) = gpu.attempt("download", || {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for (i, (buffer, &length)) in buffers.iter().zip(&lengths).enumerate() {
                encoder.copy_buffer_to_buffer(from, (first + i * PART) as u64, buffer, 0, length as u64);
            }
            let submission = gpu.queue.submit([encoder.finish()]);
            let ask = |(buffer, length): (wgpu::Buffer, usize)| {
                let (said, answer) = mpsc::channel();
                // who no longer waits for the bytes needs no answer
                buffer.map_async(wgpu::MapMode::Read, 0..length as u64, move |told| {
                    said.send(told).unwrap_or(())
                });
                (buffer, answer)
            };
            let parts: Vec<_> = buffers.into_iter().zip(lengths).map(ask).collect();
            (parts, submission)
        })?;
        Ok(Some(Self { parts, submission, skip: offset - first, bytes }))
    }

    /// Waits for the bytes.
    pub fn finish(self, gpu: &Gpu) -> Result<Vec<u8>, DeviceError> {
        let mut read = Vec::new();
        let bytes = self.bytes;
        read.try_reserve_exact(bytes).map_err(|e| gpu.failed(format!("download: no host memory: {e}")))?;
        gpu.wait(Some(self.submission))?;
        let mut skip = self.skip;
        for (buffer, answer) in self.parts {
            let length = usize::try_from(buffer.size()).expect("a part is shorter than 4 GiB");
            take_mapped(gpu, &buffer, &answer, length, |view| {
                let end = length.min(skip + bytes - read.len());
                read.extend_from_slice(&view[skip..end]);
            })?;
            skip = 0;
        }
        Ok(read)
    }
}
