//! One tensor of a checkpoint, as it lies in its file, and conversions of its values.

use super::error::WeightsError;
use super::mmap::HostBytes;
use auscult_kernels::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::path::Path;

// `as_f32`, `to_f32` and `HostBytes::from_f32s` take memory order for file order
#[cfg(target_endian = "big")]
compile_error!(
    "weights are read in place: safetensors files are little-endian, and so must the processor be"
);

/// Elements converted or examined at a time: their two copies stay in the first-level cache.
const CHUNK: usize = 2048;

/// A tensor of mapped weights, borrowed from [`Weights`](super::Weights).
#[derive(Clone, Copy, Debug)]
pub struct WeightView<'w> {
    /// Full name in the file.
    pub name: &'w str,
    /// Element type.
    pub dtype: DType,
    /// Extents, slowest first; row-major.
    pub shape: &'w [usize],
    /// Little-endian elements; not necessarily aligned to their size.
    pub bytes: &'w [u8],
    host: &'w HostBytes,
    file: &'w Path,
}

impl<'w> WeightView<'w> {
    pub(super) fn new(
        name: &'w str,
        dtype: DType,
        shape: &'w [usize],
        host: &'w HostBytes,
        file: &'w Path,
    ) -> Self {
        Self { name, dtype, shape, bytes: host, host, file }
    }

    /// The file the tensor lies in.
    pub fn file(&self) -> &'w Path {
        self.file
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// A handle on the bytes that outlives the view and the [`Weights`](super::Weights); nothing is copied.
    pub fn host(&self) -> HostBytes {
        self.host.clone()
    }

    /// The values in place, if they are stored as F32 and aligned to 4.
    pub fn as_f32(&self) -> Option<&'w [f32]> {
        match self.dtype {
            DType::F32 => bytemuck::try_cast_slice(self.bytes).ok(),
            _ => None,
        }
    }

    /// The values as f32, exactly (F16 and BF16 widen without loss), at any alignment.
    ///
    /// # Errors
    /// [`WeightsError::NotFloat`] for integers.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        let mut values = vec![0.0; self.elements()];
        match self.dtype {
            DType::F32 => bytemuck::cast_slice_mut(&mut values).copy_from_slice(self.bytes),
            DType::F16 => widen::<f16>(self.bytes, &mut values),
            DType::BF16 => widen::<bf16>(self.bytes, &mut values),
            _ => return Err(self.not_float()),
        }
        Ok(values)
    }

    /// The values as f32 bytes aligned to 4: the map itself where it holds such, else a converted copy.
    ///
    /// # Errors
    /// [`WeightsError::NotFloat`] for integers.
    pub fn host_f32(&self) -> Result<HostBytes, WeightsError> {
        match self.as_f32() {
            Some(_) => Ok(self.host()),
            None => self.to_f32().map(HostBytes::from_f32s),
        }
    }

    /// The first value that is NaN or infinite, with its index; integers have none.
    pub fn first_non_finite(&self) -> Option<(usize, f32)> {
        let index = first_non_finite(self.dtype, self.bytes)?;
        let bytes = &self.bytes[index * self.dtype.size()..];
        let value = match self.dtype {
            DType::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            DType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            _ => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        };
        Some((index, value))
    }

    /// Whether every value is unchanged by rounding to F16, so that F16 storage loses nothing. NaN and integers are not.
    pub fn f16_exact(&self) -> bool {
        let mut values = [0.0f32; CHUNK];
        let mut narrow = [f16::ZERO; CHUNK];
        let mut back = [0.0f32; CHUNK];
        self.bytes.chunks(CHUNK * self.dtype.size()).all(|bytes| {
            let n = bytes.len() / self.dtype.size();
            let (values, narrow, back) = (&mut values[..n], &mut narrow[..n], &mut back[..n]);
            match self.dtype {
                DType::F32 => bytemuck::cast_slice_mut(values).copy_from_slice(bytes),
                DType::F16 => widen::<f16>(bytes, values),
                DType::BF16 => widen::<bf16>(bytes, values),
                _ => return false,
            }
            narrow.convert_from_f32_slice(values);
            narrow.convert_to_f32_slice(back);
            values.iter().zip(back.iter()).fold(true, |all, (value, back)| all & (value == back))
        })
    }

    fn not_float(&self) -> WeightsError {
        WeightsError::NotFloat {
            file: self.file.to_path_buf(),
            tensor: self.name.to_string(),
            found: self.dtype.to_string(),
        }
    }
}

/// Which of these little-endian values is the first that is NaN or infinite; integers have none.
pub fn first_non_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    // a value is not finite when its exponent bits are all ones
    match dtype {
        DType::F32 => first_saturated(bytes, 0x7f80_0000u32, u32::from_le_bytes),
        DType::F16 => first_saturated(bytes, 0x7c00u16, u16::from_le_bytes),
        DType::BF16 => first_saturated(bytes, 0x7f80u16, u16::from_le_bytes),
        _ => None,
    }
}

/// Widens half-precision values of any alignment; `bytes` holds exactly `values.len()` of them.
fn widen<H: bytemuck::Pod>(bytes: &[u8], values: &mut [f32])
where
    [H]: HalfFloatSliceExt,
{
    let mut aligned = [H::zeroed(); CHUNK];
    for (bytes, values) in bytes.chunks(CHUNK * size_of::<H>()).zip(values.chunks_mut(CHUNK)) {
        let aligned = &mut aligned[..values.len()];
        bytemuck::cast_slice_mut(aligned).copy_from_slice(bytes);
        aligned.convert_to_f32_slice(values);
    }
}

/// The first element whose bits under `mask` are all set. Each chunk is reduced by a maximum, which the compiler turns
/// into vector code; only a chunk with a hit is searched.
fn first_saturated<const N: usize, T>(bytes: &[u8], mask: T, read: fn([u8; N]) -> T) -> Option<usize>
where
    T: Copy + Default + Ord + std::ops::BitAnd<Output = T>,
{
    let (elements, _) = bytes.as_chunks::<N>();
    elements.chunks(CHUNK).enumerate().find_map(|(chunk, elements)| {
        let largest = elements.iter().fold(T::default(), |largest, &e| largest.max(read(e) & mask));
        if largest != mask {
            return None;
        }
        let within = elements.iter().position(|&e| read(e) & mask == mask)?;
        Some(chunk * CHUNK + within)
    })
}
