//! Refusals of memory, and what makes an access legal.

mod allocations;
mod atomics;
mod barriers;
mod bulk;
mod copies;
mod model;
mod ordering;
mod places;
mod tensor;

use super::{Shared, Thread};
use crate::ptx_sim::fault::{FaultKind, Refusal};

fn thread(warp: u32, lane: u32) -> Thread {
    Thread { warp, lane }
}

/// Shared memory where every access is an instruction of its own.
struct Block {
    shared: Shared,
}

impl Block {
    /// 1,024 bytes for so many warps.
    fn new(warps: usize) -> Self {
        Self { shared: Shared::new(1024, warps) }
    }

    fn write(&mut self, who: Thread, address: u32, value: u32) -> Result<(), Refusal> {
        self.shared.begin_instruction(who.warp);
        self.shared.write(who, address, &value.to_le_bytes())
    }

    fn write_bytes(&mut self, who: Thread, address: u32, bytes: &[u8]) -> Result<(), Refusal> {
        self.shared.begin_instruction(who.warp);
        self.shared.write(who, address, bytes)
    }

    fn read(&mut self, who: Thread, address: u32) -> Result<u32, Refusal> {
        let mut into = [0; 4];
        self.shared.begin_instruction(who.warp);
        self.shared.read(who, address, &mut into)?;
        Ok(u32::from_le_bytes(into))
    }

    fn read_half(&mut self, who: Thread, address: u32) -> Result<u16, Refusal> {
        let mut into = [0; 2];
        self.shared.begin_instruction(who.warp);
        self.shared.read(who, address, &mut into)?;
        Ok(u16::from_le_bytes(into))
    }

    fn add(&mut self, who: Thread, address: u32, n: u64) -> Result<u64, Refusal> {
        self.shared.begin_instruction(who.warp);
        self.shared.atomic(who, address, 4, &|old| old + n)
    }

    fn copy(&mut self, who: Thread, address: u32, bytes: &[u8]) -> Result<(), Refusal> {
        self.shared.begin_instruction(who.warp);
        self.shared.async_copy(who, address, bytes)
    }

    fn arrive(&mut self, who: Thread, barrier: u32, expect: u32) -> Result<u64, Refusal> {
        self.shared.begin_instruction(who.warp);
        self.shared.mbarrier_arrive(who, barrier, 1, expect)
    }

    fn test(&mut self, who: Thread, barrier: u32, parity: bool) -> Result<bool, Refusal> {
        self.shared.begin_instruction(who.warp);
        self.shared.mbarrier_test(who, barrier, parity)
    }

    /// All lanes of a warp test, as one instruction.
    fn test_warp(&mut self, warp: u32, barrier: u32, parity: bool) -> Result<bool, Refusal> {
        self.shared.begin_instruction(warp);
        let mut all = true;
        for lane in 0..32 {
            all &= self.shared.mbarrier_test(thread(warp, lane), barrier, parity)?;
        }
        Ok(all)
    }

    /// A barrier object, made by the first thread and known to all.
    fn init(&mut self, barrier: u32, count: u32) {
        self.shared.begin_instruction(0);
        self.shared.mbarrier_init(thread(0, 0), barrier, count).unwrap();
        self.barrier();
    }

    fn bulk(&mut self, who: Thread, barrier: u32, address: u32, bytes: &[u8]) -> Result<(), Refusal> {
        self.shared.begin_instruction(who.warp);
        self.shared.bulk_write(who, barrier, address, bytes)
    }

    fn fence(&mut self, who: Thread) {
        self.shared.begin_instruction(who.warp);
        self.shared.fence_async(who);
    }

    fn barrier(&mut self) {
        let warps: Vec<u32> = (0..u32::try_from(self.shared.clocks.warps()).unwrap()).collect();
        for &warp in &warps {
            self.shared.begin_instruction(warp);
        }
        self.shared.barrier(&warps);
    }

    fn warp_sync(&mut self, warp: u32, lanes: u32) {
        self.shared.begin_instruction(warp);
        self.shared.warp_sync(warp, lanes);
    }
}

/// The access is refused with this kind, and its text has these pieces.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>, kind: FaultKind, pieces: &[&str]) {
    let refusal = result.expect_err("the access must be refused");
    assert_eq!(refusal.kind, kind, "{refusal}");
    for piece in pieces {
        assert!(refusal.detail.contains(piece), "`{}` lacks `{piece}`", refusal.detail);
    }
}
