//! Host weights on their way to a device.

use crate::error::Result;
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::weights::{HostBytes, WeightView};
use auscult_runtime::{Backend, Contents, Tensor};

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
