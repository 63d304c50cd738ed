//! Host weights on their way to a device.

use crate::error::Result;
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::weights::{HostBytes, WeightView};
use auscult_runtime::{Backend, Contents, Tensor};
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use std::borrow::Cow;

/// A tensor whose bytes are on the host: mapped where the checkpoint's type is the one wanted, converted otherwise.
#[derive(Clone, Debug)]
pub(crate) struct HostTensor {
    pub desc: TensorDesc,
    pub bytes: HostBytes,
}

impl HostTensor {
    /// A checkpoint's tensor as f32.
    pub fn f32(view: &WeightView<'_>) -> Result<Self> {
        Ok(Self { desc: TensorDesc::f32(view.shape.to_vec()), bytes: view.host_f32()? })
    }

    /// Values computed on the host.
    pub fn from_f32s(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        Self { desc: TensorDesc::f32(shape), bytes: HostBytes::from_f32s(values) }
    }

    /// Bytes put together on the host.
    pub fn from_bytes(dtype: DType, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> Self {
        Self { desc: TensorDesc::new(dtype, shape), bytes: HostBytes::from_vec(bytes) }
    }

    /// A checkpoint's tensor as it is stored.
    pub fn stored(view: &WeightView<'_>) -> Self {
        Self { desc: TensorDesc::new(view.dtype, view.shape.to_vec()), bytes: view.host() }
    }

    /// The tensor on a device.
    pub fn upload(&self, backend: &dyn Backend) -> Result<Tensor> {
        let buffer = backend.alloc(Contents::Host(self.bytes.clone()))?;
        Ok(Tensor { desc: self.desc.clone(), span: buffer.span() })
    }

    /// The same values in two-byte storage. `None` if a finite value has no finite counterpart there.
    pub fn narrowed(&self, dtype: DType) -> Option<Self> {
        if self.desc.dtype == dtype {
            return Some(self.clone());
        }
        let wide: Vec<f32> = match self.desc.dtype {
            DType::F32 => bytemuck::pod_collect_to_vec(&self.bytes),
            DType::F16 => each::<half::f16>(&self.bytes).map(half::f16::to_f32).collect(),
            DType::BF16 => each::<half::bf16>(&self.bytes).map(half::bf16::to_f32).collect(),
            _ => return None,
        };
        let desc = TensorDesc::new(dtype, self.desc.shape.clone());
        let bytes: Vec<u8> = match dtype {
            DType::F32 => return Some(Self { desc, bytes: HostBytes::from_f32s(wide) }),
            DType::F16 => narrow(&wide, half::f16::from_f32, half::f16::is_finite)?,
            DType::BF16 => narrow(&wide, half::bf16::from_f32, half::bf16::is_finite)?,
            _ => return None,
        };
        Some(Self { desc, bytes: HostBytes::from_vec(bytes) })
    }
}

impl HostTensor {
    /// The same values in the two-byte type `dtype`, where that changes none of them.
    pub fn lean(&self, dtype: DType) -> Option<Self> {
        if self.desc.dtype == dtype {
            return Some(self.clone());
        }
        if self.desc.dtype != DType::F32 {
            return None;
        }
        let wide: Cow<'_, [f32]> = match bytemuck::try_cast_slice(&self.bytes) {
            Ok(wide) => Cow::Borrowed(wide),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(&self.bytes)),
        };
        let bytes = match dtype {
            DType::F16 => rounded::<half::f16>(&wide)?,
            DType::BF16 => rounded::<half::bf16>(&wide)?,
            _ => return None,
        };
        Some(Self::from_bytes(dtype, self.desc.shape.clone(), bytes))
    }
}

/// Values that a task rounds.
const TASK: usize = 1 << 14;

/// The bytes of `wide` rounded, if no value changes. A NaN does.
fn rounded<H: bytemuck::Pod + Send>(wide: &[f32]) -> Option<Vec<u8>>
where
    [H]: HalfFloatSliceExt,
{
    let mut narrow = vec![H::zeroed(); wide.len()];
    let is_exact = |(wide, narrow): (&[f32], &mut [H])| {
        let mut back = [0.0; TASK];
        let back = &mut back[..wide.len()];
        narrow.convert_from_f32_slice(wide);
        narrow.convert_to_f32_slice(back);
        wide.iter().zip(&*back).fold(true, |all, (wide, back)| all & (wide == back))
    };
    let exact = wide.par_chunks(TASK).zip(narrow.par_chunks_mut(TASK)).all(is_exact);
    exact.then(|| bytemuck::cast_slice(&narrow).to_vec())
}

/// A tensor that was asked of a loader whose account has been found clean since.
pub(crate) fn present<'a, 'w>(view: &'a Option<WeightView<'w>>) -> &'a WeightView<'w> {
    view.as_ref().expect("a clean account of the loader means that every tensor was found")
}

fn each<T: bytemuck::Pod>(bytes: &[u8]) -> impl Iterator<Item = T> + '_ {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

fn narrow<T: bytemuck::Pod>(wide: &[f32], to: fn(f32) -> T, is_finite: fn(T) -> bool) -> Option<Vec<u8>> {
    let narrow: Vec<T> = wide.iter().map(|&v| to(v)).collect();
    let kept = wide.iter().zip(&narrow).all(|(w, &n)| !w.is_finite() || is_finite(n));
    kept.then(|| bytemuck::cast_slice(&narrow).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_rounding_keeps_is_lean() {
        let of = |values: &[f32], dtype| HostTensor::from_f32s([values.len()], values.to_vec()).lean(dtype);
        // the largest f16, its least, a signed zero; then whole tasks of others, so that every task counts
        let mut values = vec![65_504.0, 2.0_f32.powi(-24), -0.0];
        values.resize(2 * TASK + 5, f32::from(half::f16::from_f32(0.3)));
        let lean = of(&values, DType::F16).expect("exact in f16");
        assert_eq!(lean.desc, TensorDesc::new(DType::F16, [values.len()]));
        let back: Vec<u32> = each::<half::f16>(&lean.bytes).map(|v| v.to_f32().to_bits()).collect();
        assert_eq!(back, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        assert!(of(&values, DType::BF16).is_none());
        *values.last_mut().expect("there are many") = 70_144.0;
        assert!(of(&values, DType::F16).is_none());
        assert!(of(&[70_144.0, 1.0], DType::BF16).is_some());
        for dtype in [DType::F16, DType::BF16] {
            assert!(of(&[1.0, f32::NAN], dtype).is_none());
            assert!(of(&[0.1], dtype).is_none());
            let stored = of(&[1.0, -0.5], dtype).expect("exact in both");
            assert_eq!(stored.lean(dtype).map(|t| t.desc), Some(stored.desc.clone()));
        }
    }
}
