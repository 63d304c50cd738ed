//! How a kernel runs on the host: slots as byte slices, viewed as the type they hold.

use bytemuck::Pod;

/// A kernel on the host: parameter block, then the slots in binding order.
///
/// Every slot has exactly the bytes of its [`crate::TensorDesc`] in the plan, aligned for its element type; a slot
/// left out is empty.
pub type HostFn = fn(params: &[u8], slots: &mut [HostSlot<'_>]);

/// The memory behind one slot.
pub enum HostSlot<'a> {
    /// Only read.
    Read(&'a [u8]),
    /// Written, or updated in place.
    Write(&'a mut [u8]),
}

impl HostSlot<'_> {
    /// The slot as a slice of `T`.
    pub fn read<T: Pod>(&self) -> &[T] {
        let bytes: &[u8] = match self {
            Self::Read(bytes) => bytes,
            Self::Write(bytes) => bytes,
        };
        // nothing lies at no particular address
        if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
    }

    /// The slot as a mutable slice of `T`.
    pub fn write<T: Pod>(&mut self) -> &mut [T] {
        match self {
            Self::Write([]) => &mut [],
            Self::Write(bytes) => bytemuck::cast_slice_mut(bytes),
            Self::Read(_) => panic!("an executor bound a written slot as read-only"),
        }
    }
}
