//! Addresses: outside, misaligned, never written.

use super::*;
use crate::ptx_sim::memory::{Allocation, Global, Window};
use FaultKind::{Invalid, Misaligned, OutOfBounds, Uninitialised};
use std::sync::Arc;

/// `x`, written, read only; `y`, not written, at offset 512 of its allocation.
fn global() -> Global {
    let x = Arc::new(Allocation::new(4096));
    x.upload(0, &[7; 4096]);
    let y = Arc::new(Allocation::new(1024));
    let window = |name: &str, allocation, offset, bytes, writable| Window {
        name: name.into(),
        allocation,
        offset,
        bytes,
        writable,
    };
    Global::new(vec![window("x", x, 0, 4096, false), window("y", y, 512, 400, true)])
}

#[test]
fn global_accesses_stay_in_their_windows() {
    let global = global();
    let (x, y) = (global.address(0), global.address(1));
    assert_eq!((x, y), (1 << 40, 2 << 40));
    let mut four = [0; 4];
    let mut eight = [0; 8];
    global.read(x + 4092, &mut four).unwrap();
    assert_eq!(four, [7; 4]);
    let range = "`x` [0x10000000000, 4096 bytes)";
    refused(
        global.read(x + 4096 + 8, &mut eight),
        OutOfBounds,
        &[range, "read of 8 bytes at 0x10000001008, 8 bytes past its end"],
    );
    refused(global.read(x - 8, &mut eight), OutOfBounds, &[range, "8 bytes before its start"]);
    refused(
        global.write(y + 400, &[0; 4]),
        OutOfBounds,
        &["`y`", "write of 4 bytes", "0 bytes past its end"],
    );
    refused(global.write(y + 392, &[0; 16]), Misaligned, &["`y`", "expected a multiple of 16"]);
    global.write(y + 384, &[0; 16]).unwrap();
    refused(global.read(0, &mut four), OutOfBounds, &["4 bytes at 0x0, a null pointer"]);
    refused(global.read(64, &mut four), OutOfBounds, &["a small offset from a null pointer"]);
    refused(global.atomic(y + 400, 4, &|v| v), OutOfBounds, &["atomic of 4 bytes"]);
    refused(Global::new(vec![]).read(x, &mut four), OutOfBounds, &["the launch was given no memory"]);
}

#[test]
fn a_window_may_end_inside_an_access() {
    let allocation = Arc::new(Allocation::new(64));
    let window = Window { name: "z".into(), allocation, offset: 0, bytes: 20, writable: true };
    let global = Global::new(vec![window]);
    let text = ["`z`", "write of 8 bytes", "the last 4 of them past its end"];
    refused(global.write(global.address(0) + 16, &[0; 8]), OutOfBounds, &text);
}

#[test]
fn spans_keep_their_place_modulo_256() {
    let allocation = Arc::new(Allocation::new(1024));
    allocation.upload(260, &[1, 2, 3, 4]);
    let window = Window { name: "z".into(), allocation, offset: 260, bytes: 4, writable: false };
    let global = Global::new(vec![window]);
    assert_eq!(global.address(0) % 256, 4);
    let mut into = [0; 4];
    global.read(global.address(0), &mut into).unwrap();
    assert_eq!(into, [1, 2, 3, 4]);
    refused(global.read(global.address(0), &mut [0; 8]), Misaligned, &["`z`", "expected a multiple of 8"]);
}

#[test]
fn what_nothing_wrote_is_not_read() {
    let global = global();
    let y = global.address(1);
    global.write(y + 2, &[1, 2]).unwrap();
    let mut two = [0; 2];
    global.read(y + 2, &mut two).unwrap();
    assert_eq!(two, [1, 2]);
    refused(
        global.read(y, &mut [0; 4]),
        Uninitialised,
        &["`y`", "read of 4 bytes at 0x20000000000 (offset 0), of which bytes 0, 1 were never written"],
    );
    refused(global.read(y + 8, &mut [0; 8]), Uninitialised, &["(offset 8), of which all were never written"]);
    refused(global.atomic(y, 4, &|v| v), Uninitialised, &["atomic of 4 bytes"]);
    global.write(y, &[3]).unwrap();
    refused(global.read(y, &mut [0; 4]), Uninitialised, &["byte 1 was never written"]);
}

#[test]
fn read_only_slots_are_not_written() {
    let global = global();
    let text = ["`x`", "at 0x10000000010, but the slot is only read"];
    refused(global.write(global.address(0) + 16, &[0; 16]), Invalid, &text);
    refused(global.atomic(global.address(0) + 16, 8, &|v| v), Invalid, &text);
}

#[test]
fn global_atomics_return_what_was() {
    let global = global();
    let y = global.address(1);
    global.write(y, &u64::MAX.to_le_bytes()).unwrap();
    assert_eq!(global.atomic(y, 4, &|v| v.wrapping_add(2)), Ok(u64::from(u32::MAX)));
    let mut eight = [0; 8];
    global.read(y, &mut eight).unwrap();
    assert_eq!(u64::from_le_bytes(eight), 0xffff_ffff_0000_0001, "the neighbour is not carried into");
    assert_eq!(global.atomic(y, 8, &|v| v + 5), Ok(0xffff_ffff_0000_0001));
    global.read(y, &mut eight).unwrap();
    assert_eq!(u64::from_le_bytes(eight), 0xffff_ffff_0000_0006);
}

#[test]
fn shared_accesses_stay_in_the_block() {
    let mut block = Block::new(1);
    let me = thread(0, 3);
    block.shared.label("tile", 1000, 24);
    block.write(me, 1020, 5).unwrap();
    assert_eq!(block.read(me, 1020), Ok(5));
    refused(
        block.read(me, 1028),
        OutOfBounds,
        &["read of 4 bytes at shared 0x404, 4 bytes past the end of the block's 1024 bytes"],
    );
    refused(
        block.write_bytes(me, 1016, &[0; 16]),
        Misaligned,
        &["write of 16 bytes at shared 0x3f8 (`tile` + 16), expected a multiple of 16"],
    );
    refused(block.read(me, 1016), Uninitialised, &["(`tile` + 16), of which all were never written"]);
    block.write_bytes(me, 512, &[1]).unwrap();
    refused(block.read(me, 512), Uninitialised, &["shared 0x200, of which bytes 1, 2, 3 were never written"]);
    refused(block.add(me, 516, 1), Uninitialised, &["atomic of 4 bytes"]);
    let mut small = Shared::new(12, 1);
    small.begin_instruction(0);
    refused(small.write(me, 8, &[0; 8]), OutOfBounds, &["the last 4 of them past the end"]);
}
