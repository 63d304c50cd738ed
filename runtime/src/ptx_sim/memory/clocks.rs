//! Who is ordered after whom in a block.

/// One thread of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Warp in the block.
    pub warp: u32,
    /// Lane in the warp.
    pub lane: u32,
}
