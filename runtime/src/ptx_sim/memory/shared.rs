//! Shared memory of one block.

use super::Thread;
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// Shared memory of one block.
pub struct Shared {
    bytes: Vec<u8>,
    written: Vec<bool>,
}

impl Shared {
    pub fn new(bytes: usize, _warps: usize) -> Self {
        Self { bytes: vec![0xcd; bytes], written: vec![false; bytes] }
    }
    pub fn begin_instruction(&mut self, _warp: u32) {}
    fn check(&self, address: u32, n: usize) -> Result<usize, Refusal> {
        let at = address as usize;
        if at % n != 0 {
            return Err(Refusal::new(FaultKind::Misaligned, format!("shared {address:#x}")));
        }
        if at + n > self.bytes.len() {
            return Err(Refusal::new(FaultKind::OutOfBounds, format!("shared {address:#x}")));
        }
        Ok(at)
    }
    pub fn read(&mut self, _who: Thread, address: u32, into: &mut [u8]) -> Result<(), Refusal> {
        let at = self.check(address, into.len())?;
        if self.written[at..at + into.len()].contains(&false) {
            return Err(Refusal::new(FaultKind::Uninitialised, format!("shared {address:#x}")));
        }
        into.copy_from_slice(&self.bytes[at..at + into.len()]);
        Ok(())
    }
    pub fn write(&mut self, _who: Thread, address: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let at = self.check(address, bytes.len())?;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.written[at..at + bytes.len()].fill(true);
        Ok(())
    }
    pub fn atomic(
        &mut self,
        who: Thread,
        address: u32,
        bytes: usize,
        op: &dyn Fn(u64) -> u64,
    ) -> Result<u64, Refusal> {
        let mut word = [0; 8];
        self.read(who, address, &mut word[..bytes])?;
        let old = u64::from_le_bytes(word);
        self.write(who, address, &op(old).to_le_bytes()[..bytes])?;
        Ok(old)
    }
    pub fn warp_sync(&mut self, _warp: u32, _lanes: u32) {}
    pub fn barrier(&mut self, _warps: &[u32]) {}
    pub fn async_copy(&mut self, who: Thread, address: u32, bytes: &[u8]) -> Result<(), Refusal> {
        self.write(who, address, bytes)
    }
    pub fn async_commit(&mut self, _who: Thread) {}
    pub fn async_wait(&mut self, _who: Thread, _pending: u32) {}
    pub fn fence_async(&mut self, _who: Thread) {}
    pub fn finish(&mut self) -> Result<(), Refusal> {
        Ok(())
    }
}
