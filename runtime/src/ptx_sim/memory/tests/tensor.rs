//! Operands of tensor instructions in shared memory.

use super::*;
use FaultKind::{OutOfBounds, Race, Unfinished, Uninitialised};

const BAR: u32 = 512;

fn operand(block: &mut Block, warp: u32, address: u32) -> Result<[u8; 16], Refusal> {
    let mut into = [0; 16];
    block.shared.begin_instruction(warp);
    block.shared.wgmma_read(warp, address, &mut into)?;
    Ok(into)
}

/// Warps 0 to 3 multiply, warp 4 copies; 16 bytes at 0 are there for the multipliers.
fn delivered() -> Block {
    let mut block = Block::new(5);
    block.init(BAR, 1);
    block.arrive(thread(4, 0), BAR, 16).unwrap();
    block.bulk(thread(4, 0), BAR, 0, &[9; 16]).unwrap();
    for warp in 0..4 {
        assert_eq!(block.test_warp(warp, BAR, false), Ok(true));
    }
    block
}

#[test]
fn operands_are_what_the_warp_waited_for() {
    let mut block = delivered();
    assert_eq!(operand(&mut block, 2, 0), Ok([9; 16]));
    refused(
        operand(&mut block, 4, 0),
        Unfinished,
        &["wgmma read of 16 bytes", "complete, but not waited for"],
    );
    // one lane is not the warp
    assert_eq!(block.test(thread(4, 0), BAR, false), Ok(true));
    refused(operand(&mut block, 4, 0), Unfinished, &["not waited for"]);
    block.warp_sync(4, u32::MAX);
    assert_eq!(operand(&mut block, 4, 0), Ok([9; 16]));
    refused(
        operand(&mut block, 0, 16),
        Uninitialised,
        &["wgmma read of 16 bytes at shared 0x10, of which all were never written"],
    );
    refused(operand(&mut block, 0, 1020), OutOfBounds, &["the last 12 of them past the end"]);
}

#[test]
fn operands_that_threads_wrote_are_fenced() {
    for (fence, barrier) in [(true, true), (true, false), (false, true)] {
        let mut block = Block::new(4);
        for lane in 0..4 {
            block.write(thread(1, lane), lane * 4, lane).unwrap();
            if fence {
                block.fence(thread(1, lane));
            }
        }
        if barrier {
            block.barrier();
        }
        let read = operand(&mut block, 0, 0);
        match (fence, barrier) {
            (true, true) => assert_eq!(read, Ok([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])),
            (true, false) => refused(read, Race, &["no barrier orders its write by warp 1 lane 0"]),
            _ => refused(
                read,
                Race,
                &["warp 1 lane 0 wrote it through the generic proxy", "`fence.proxy.async`"],
            ),
        }
    }
    // halves of words, one of them without its fence
    let mut block = Block::new(4);
    for half in 0..8 {
        block.write_bytes(thread(1, half), half * 2, &[1, 1]).unwrap();
        if half != 5 {
            block.fence(thread(1, half));
        }
    }
    block.barrier();
    refused(operand(&mut block, 0, 0), Race, &["warp 1 lane 5 wrote it through the generic proxy"]);
}

#[test]
fn copies_of_threads_are_waited_for_and_fenced() {
    let me = thread(0, 0);
    for fence in [true, false] {
        let mut block = Block::new(4);
        block.copy(me, 0, &[8; 16]).unwrap();
        block.shared.async_commit(me);
        refused(
            operand(&mut block, 0, 0),
            Unfinished,
            &["`cp.async` by warp 0 lane 0", "a wait that leaves 0 groups"],
        );
        block.shared.async_wait(me, 0);
        if fence {
            block.fence(me);
        }
        block.barrier();
        let read = operand(&mut block, 0, 0);
        if fence {
            assert_eq!(read, Ok([8; 16]));
        } else {
            refused(read, Race, &["no `fence.proxy.async` of its own"]);
        }
    }
}

#[test]
fn operands_are_not_overwritten_before_the_wait() {
    let producer = thread(4, 0);
    let empty = BAR + 8;
    for (wait, arrive) in [(true, true), (true, false), (false, true)] {
        let mut block = delivered();
        block.init(empty, 4);
        for warp in 0..4 {
            operand(&mut block, warp, 0).unwrap();
            block.shared.wgmma_commit(warp);
        }
        if wait {
            for warp in 0..4 {
                block.shared.wgmma_wait(warp, 0);
            }
        }
        // one lane of each warp speaks for it
        for warp in 0..if arrive { 4 } else { 3 } {
            block.arrive(thread(warp, 0), empty, 0).unwrap();
        }
        assert_eq!(block.test(producer, empty, false), Ok(arrive));
        block.test(producer, BAR, false).unwrap();
        let copy = block.bulk(producer, BAR, 0, &[1; 16]);
        let text = "the wgmma of warp 0 that reads it";
        match (wait, arrive) {
            (true, true) => copy.unwrap(),
            (true, false) => refused(copy, Race, &["no barrier orders the wait for", text]),
            _ => refused(
                copy,
                Unfinished,
                &["bulk copy of 16 bytes at shared 0x0 by warp 4 lane 0", text, "was not waited for"],
            ),
        }
    }
}

#[test]
fn groups_are_waited_for_in_order() {
    let mut block = Block::new(4);
    for lane in 0..4 {
        block.write_bytes(thread(0, lane), lane * 16, &[1; 16]).unwrap();
        block.fence(thread(0, lane));
    }
    block.barrier();
    for group in 0..3 {
        operand(&mut block, 0, group * 16).unwrap();
        block.shared.wgmma_commit(0);
    }
    operand(&mut block, 0, 48).unwrap();
    refused(
        block.write(thread(0, 0), 0, 2),
        Unfinished,
        &["write of 4 bytes at shared 0x0", "was not waited for"],
    );
    block.shared.wgmma_wait(0, 2);
    block.write(thread(0, 0), 0, 2).unwrap();
    refused(block.write(thread(0, 1), 16, 2), Unfinished, &["was not waited for"]);
    block.shared.wgmma_wait(0, 0);
    block.barrier();
    block.write(thread(0, 1), 16, 2).unwrap();
    // read in a group that is not even committed
    refused(block.write(thread(0, 3), 48, 2), Unfinished, &["was not waited for"]);
    refused(block.shared.finish(), Unfinished, &["wgmma of warp 0 was never waited for"]);
    block.shared.wgmma_commit(0);
    block.shared.wgmma_wait(0, 0);
    block.shared.finish().unwrap();
}
