//! `cp.async`: what its bytes may be used for, and when.

use super::*;
use FaultKind::{Misaligned, Race, Unfinished};

#[test]
fn a_copy_is_there_after_its_wait() {
    let mut block = Block::new(1);
    let me = thread(0, 2);
    block.copy(me, 16, &[5; 16]).unwrap();
    let text = [
        "read of 4 bytes at shared 0x18 by warp 0 lane 2",
        "`cp.async` by warp 0 lane 2",
        "was not committed",
    ];
    refused(block.read(me, 24), Unfinished, &text);
    block.shared.async_wait(me, 0);
    refused(block.read(me, 24), Unfinished, &["was not committed"]);
    block.shared.async_commit(me);
    refused(
        block.read(me, 24),
        Unfinished,
        &["is under way: a wait that leaves 0 groups or less must come first"],
    );
    refused(block.read_half(me, 24), Unfinished, &["read of 2 bytes"]);
    refused(block.write(me, 24, 0), Unfinished, &["write of 4 bytes"]);
    refused(block.write_bytes(me, 24, &[0]), Unfinished, &["write of 1 bytes"]);
    refused(block.copy(me, 24, &[0; 4]), Unfinished, &["cp.async of 4 bytes"]);
    refused(block.add(me, 24, 1), Unfinished, &["atomic of 4 bytes"]);
    refused(
        block.shared.finish(),
        Unfinished,
        &["cp.async of 16 bytes at shared 0x10 by warp 0 lane 2 was never waited for"],
    );
    block.shared.async_wait(me, 0);
    assert_eq!(block.read(me, 24), Ok(0x0505_0505));
    block.shared.finish().unwrap();
}

#[test]
fn others_need_a_barrier_after_the_wait() {
    for (waited_first, with_barrier) in [(true, true), (true, false), (false, true)] {
        let mut block = Block::new(2);
        block.copy(thread(0, 0), 0, &[1; 4]).unwrap();
        block.shared.async_commit(thread(0, 0));
        if waited_first {
            block.shared.async_wait(thread(0, 0), 0);
        }
        if with_barrier {
            block.barrier();
        }
        if !waited_first {
            block.shared.async_wait(thread(0, 0), 0);
        }
        let read = block.read(thread(1, 0), 0);
        if waited_first && with_barrier {
            assert_eq!(read, Ok(0x0101_0101));
        } else {
            refused(read, Race, &["its write by warp 0 lane 0"]);
        }
    }
    // another lane of the warp needs a synchronisation too
    let mut block = Block::new(1);
    block.copy(thread(0, 0), 0, &[1; 4]).unwrap();
    block.shared.async_commit(thread(0, 0));
    block.shared.async_wait(thread(0, 0), 0);
    refused(block.read(thread(0, 1), 0), Race, &["its write by warp 0 lane 0"]);
    block.warp_sync(0, u32::MAX);
    block.read(thread(0, 1), 0).unwrap();
}

#[test]
fn groups_are_waited_for_in_order() {
    let me = thread(0, 0);
    let start = || {
        let mut block = Block::new(1);
        for group in 0..3_u8 {
            block.copy(me, u32::from(group) * 16, &[group; 16]).unwrap();
            block.shared.async_commit(me);
        }
        block
    };
    let mut block = start();
    block.shared.async_wait(me, 2);
    assert_eq!(block.read(me, 0), Ok(0));
    refused(block.read(me, 16), Unfinished, &["a wait that leaves 1 groups or less"]);
    block.shared.async_wait(me, 1);
    assert_eq!(block.read(me, 16), Ok(0x0101_0101));
    refused(block.read(me, 32), Unfinished, &["a wait that leaves 0 groups or less"]);
    // an empty group counts too
    block.shared.async_commit(me);
    block.shared.async_wait(me, 1);
    assert_eq!(block.read(me, 32), Ok(0x0202_0202));
    let mut block = start();
    block.shared.async_wait(me, 3);
    refused(block.read(me, 0), Unfinished, &["a wait that leaves 2 groups or less"]);
}

#[test]
fn waits_are_each_threads_own() {
    let mut block = Block::new(1);
    block.copy(thread(0, 0), 0, &[1; 16]).unwrap();
    block.shared.async_commit(thread(0, 0));
    block.shared.async_wait(thread(0, 1), 0);
    block.barrier();
    refused(block.read(thread(0, 1), 0), Unfinished, &["by warp 0 lane 1", "`cp.async` by warp 0 lane 0"]);
}

#[test]
fn copies_do_not_overtake_readers() {
    for with_barrier in [true, false] {
        let mut block = Block::new(2);
        block.write_bytes(thread(0, 0), 0, &[1; 16]).unwrap();
        block.barrier();
        block.read(thread(1, 6), 12).unwrap();
        if with_barrier {
            block.barrier();
        }
        let copy = block.copy(thread(0, 0), 0, &[2; 16]);
        if with_barrier {
            copy.unwrap();
        } else {
            refused(
                copy,
                Race,
                &["cp.async of 16 bytes at shared 0x0 by warp 0 lane 0", "its read by warp 1 lane 6"],
            );
        }
    }
}

#[test]
fn copies_are_aligned_to_their_length() {
    let mut block = Block::new(1);
    refused(
        block.copy(thread(0, 0), 8, &[0; 16]),
        Misaligned,
        &["cp.async of 16 bytes at shared 0x8, expected a multiple of 16"],
    );
}
