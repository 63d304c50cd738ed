//! Bulk copies into and out of shared memory.

use super::*;
use FaultKind::{Invalid, Misaligned, OutOfBounds, Race, Unfinished, Uninitialised};

const BAR: u32 = 512;

#[test]
fn copied_bytes_are_there_for_those_who_waited() {
    let issuer = thread(0, 0);
    let mut block = Block::new(3);
    block.init(BAR, 1);
    block.arrive(issuer, BAR, 64).unwrap();
    block.bulk(issuer, BAR, 0, &[1; 32]).unwrap();
    assert_eq!(block.test(thread(1, 0), BAR, false), Ok(false));
    let text = [
        "read of 4 bytes at shared 0x0 by warp 0 lane 0",
        "a phase of the mbarrier at 0x200 which is not complete",
    ];
    refused(block.read(issuer, 0), Unfinished, &text);
    block.bulk(issuer, BAR, 32, &[2; 32]).unwrap();
    refused(block.shared.finish(), Unfinished, &["nobody waited for the copy that filled 0x0"]);
    refused(block.read(thread(1, 0), 0), Unfinished, &["which is complete, but not waited for"]);
    refused(block.write(thread(1, 0), 0, 0), Unfinished, &["write of 4 bytes"]);
    refused(block.read_half(thread(1, 0), 0), Unfinished, &["read of 2 bytes"]);
    assert_eq!(block.test_warp(1, BAR, false), Ok(true));
    assert_eq!(block.read(thread(1, 31), 36), Ok(0x0202_0202));
    // the others, too, by way of a barrier
    refused(block.read(thread(2, 0), 36), Unfinished, &["not waited for"]);
    block.shared.barrier(&[1, 2]);
    assert_eq!(block.read(thread(2, 0), 36), Ok(0x0202_0202));
    block.shared.finish().unwrap();
}

#[test]
fn the_next_round_waits_for_readers() {
    for release in [true, false] {
        let (full, empty) = (BAR, BAR + 8);
        let issuer = thread(0, 0);
        let mut block = Block::new(2);
        block.init(full, 1);
        block.init(empty, 1);
        block.arrive(issuer, full, 16).unwrap();
        block.bulk(issuer, full, 0, &[1; 16]).unwrap();
        assert_eq!(block.test_warp(1, full, false), Ok(true));
        block.read(thread(1, 2), 8).unwrap();
        block.warp_sync(1, u32::MAX);
        block.arrive(thread(1, 0), empty, 0).unwrap();
        if release {
            assert_eq!(block.test(issuer, empty, false), Ok(true));
        }
        block.arrive(issuer, full, 16).unwrap();
        let copy = block.bulk(issuer, full, 0, &[2; 16]);
        if release {
            copy.unwrap();
            assert_eq!(block.test_warp(1, full, true), Ok(true));
            assert_eq!(block.read(thread(1, 2), 8), Ok(0x0202_0202));
        } else {
            refused(
                copy,
                Unfinished,
                &["bulk copy of 16 bytes at shared 0x0 by warp 0 lane 0", "complete, but not waited for"],
            );
        }
    }
}

#[test]
fn a_reader_that_did_not_arrive_is_overwritten() {
    let issuer = thread(0, 0);
    let mut block = Block::new(3);
    block.init(BAR, 1);
    block.arrive(issuer, BAR, 16).unwrap();
    block.bulk(issuer, BAR, 0, &[1; 16]).unwrap();
    for warp in 0..3 {
        assert_eq!(block.test_warp(warp, BAR, false), Ok(true));
    }
    block.read(thread(1, 0), 0).unwrap();
    block.read(thread(2, 9), 0).unwrap();
    block.shared.barrier(&[0, 1]);
    refused(
        block.bulk(issuer, BAR, 0, &[2; 16]),
        Race,
        &["bulk copy of 16 bytes", "its read by warp 2 lane 9"],
    );
}

#[test]
fn bytes_that_do_not_add_up_leave_the_phase_open() {
    let issuer = thread(0, 0);
    for expected in [48, 16] {
        let mut block = Block::new(1);
        block.init(BAR, 1);
        block.arrive(issuer, BAR, expected).unwrap();
        block.bulk(issuer, BAR, 0, &[1; 32]).unwrap();
        assert_eq!(block.test(issuer, BAR, false), Ok(false));
        let missing = format!("phase 0 still waits for {} bytes", i64::from(expected) - 32);
        assert!(
            block
                .shared
                .mbarrier_state(BAR)
                .unwrap()
                .ends_with(&format!("{} bytes", i64::from(expected) - 32))
        );
        refused(block.shared.finish(), Unfinished, &["mbarrier of 8 bytes at shared 0x200", &missing]);
    }
    // bytes may come before they are expected
    let mut block = Block::new(1);
    block.init(BAR, 1);
    block.bulk(issuer, BAR, 0, &[1; 32]).unwrap();
    block.shared.mbarrier_expect(issuer, BAR, 32).unwrap();
    assert_eq!(block.test(issuer, BAR, false), Ok(false));
    block.arrive(issuer, BAR, 0).unwrap();
    assert_eq!(block.test(issuer, BAR, false), Ok(true));
    block.shared.finish().unwrap();
    let text = ["mbarrier.expect_tx of 8 bytes at shared 0x200", "wait for 1048576 bytes, at most 1048575"];
    refused(block.shared.mbarrier_expect(issuer, BAR, 1 << 20), Invalid, &text);
}

#[test]
fn copies_are_of_whole_units_in_their_place() {
    let me = thread(0, 0);
    let mut block = Block::new(1);
    block.init(BAR, 1);
    refused(
        block.bulk(me, BAR, 8, &[0; 16]),
        Misaligned,
        &["bulk copy of 16 bytes at shared 0x8, expected a multiple of 16"],
    );
    refused(
        block.bulk(me, BAR, 0, &[0; 24]),
        Invalid,
        &["bulk copy of 24 bytes", "expected a multiple of 16 bytes"],
    );
    refused(block.bulk(me, BAR, 1008, &[0; 32]), OutOfBounds, &["the last 16 of them past the end"]);
    refused(block.bulk(me, BAR + 8, 0, &[0; 16]), Invalid, &["bulk copy's mbarrier", "no mbarrier object"]);
    refused(
        block.shared.bulk_read(me, 0, &mut [0; 16]),
        Uninitialised,
        &["bulk copy of 16 bytes at shared 0x0, of which all were never written"],
    );
    refused(block.bulk(me, BAR, BAR, &[0; 16]), Invalid, &["touches an mbarrier object"]);
}

#[test]
fn what_threads_wrote_is_fenced_before_it_is_copied_out() {
    #[derive(Clone, Copy, PartialEq)]
    enum Fence {
        None,
        BeforeWrite,
        OfAnother,
        AfterBarrier,
        Right,
    }
    for fence in [Fence::None, Fence::BeforeWrite, Fence::OfAnother, Fence::AfterBarrier, Fence::Right] {
        let (issuer, writer) = (thread(0, 0), thread(1, 3));
        let mut block = Block::new(2);
        if fence == Fence::BeforeWrite {
            block.fence(writer);
        }
        block.write_bytes(writer, 0, &[6; 16]).unwrap();
        match fence {
            Fence::Right => block.fence(writer),
            Fence::OfAnother => block.fence(thread(1, 4)),
            _ => {}
        }
        block.barrier();
        if fence == Fence::AfterBarrier {
            block.fence(writer);
        }
        let mut into = [0; 16];
        block.shared.begin_instruction(0);
        let read = block.shared.bulk_read(issuer, 0, &mut into);
        match fence {
            Fence::Right => {
                read.unwrap();
                assert_eq!(into, [6; 16]);
            }
            Fence::AfterBarrier => refused(read, Race, &["its `fence.proxy.async` is not ordered"]),
            _ => refused(
                read,
                Race,
                &[
                    "bulk copy of 16 bytes",
                    "warp 1 lane 3 wrote it through the generic proxy, and no `fence.proxy.async` of its own",
                ],
            ),
        }
    }
    // a later fence does not hide the right one
    let mut block = Block::new(2);
    block.write_bytes(thread(1, 3), 0, &[6; 16]).unwrap();
    block.fence(thread(1, 3));
    block.barrier();
    block.fence(thread(1, 3));
    block.shared.bulk_read(thread(0, 0), 0, &mut [0; 16]).unwrap();
    // the fence orders nothing by itself
    let mut block = Block::new(2);
    block.write_bytes(thread(1, 3), 0, &[6; 16]).unwrap();
    block.fence(thread(1, 3));
    refused(
        block.shared.bulk_read(thread(0, 0), 0, &mut [0; 16]),
        Race,
        &["no barrier orders its write by warp 1 lane 3"],
    );
}

#[test]
fn copies_over_what_threads_wrote_need_the_fence() {
    for fence in [true, false] {
        let mut block = Block::new(2);
        block.init(BAR, 1);
        block.write(thread(1, 0), 12, 1).unwrap();
        if fence {
            block.fence(thread(1, 0));
        }
        block.barrier();
        let copy = block.bulk(thread(0, 0), BAR, 0, &[1; 16]);
        if fence {
            copy.unwrap();
        } else {
            refused(copy, Race, &["no `fence.proxy.async` of its own"]);
        }
    }
}

#[test]
fn copies_out_read_until_they_are_waited_for() {
    let (issuer, writer) = (thread(0, 0), thread(1, 3));
    let start = || {
        let mut block = Block::new(2);
        block.write_bytes(writer, 0, &[6; 16]).unwrap();
        block.fence(writer);
        block.barrier();
        block.shared.begin_instruction(0);
        block.shared.bulk_read(issuer, 0, &mut [0; 16]).unwrap();
        block
    };
    let mut block = start();
    refused(block.shared.finish(), Unfinished, &["bulk copy of warp 0 lane 0 was never waited for"]);
    block.shared.bulk_commit(issuer);
    block.barrier();
    let text = [
        "write of 4 bytes at shared 0xc by warp 1 lane 3: the bulk copy of warp 0 lane 0 that reads it was not waited for",
    ];
    refused(block.write(writer, 12, 0), Unfinished, &text);
    refused(block.write_bytes(writer, 12, &[0]), Unfinished, &["was not waited for"]);
    refused(block.copy(writer, 0, &[0; 16]), Unfinished, &["cp.async of 16 bytes", "was not waited for"]);
    assert_eq!(block.read(writer, 12), Ok(0x0606_0606), "reading is allowed meanwhile");
    block.shared.bulk_wait_read(issuer, 1);
    refused(block.write(issuer, 12, 0), Unfinished, &["was not waited for"]);
    block.barrier();
    block.shared.bulk_wait_read(issuer, 0);
    refused(
        block.write(writer, 12, 0),
        Race,
        &["no barrier orders the wait for the bulk copy of warp 0 lane 0 that reads it"],
    );
    block.barrier();
    block.write(writer, 12, 0).unwrap();
    block.shared.finish().unwrap();
}
