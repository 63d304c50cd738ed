//! Barrier objects: what they order, and how they may be used.

use super::*;
use FaultKind::{Invalid, Misaligned, Race, Unfinished};

const BAR: u32 = 512;

#[test]
fn a_phase_orders_what_came_before_its_arrivals() {
    for (arrives, waits) in [(true, true), (true, false), (false, true)] {
        let mut block = Block::new(2);
        block.init(BAR, 1);
        if !arrives {
            block.arrive(thread(0, 3), BAR, 0).unwrap();
        }
        block.write(thread(0, 3), 0, 7).unwrap();
        if arrives {
            block.arrive(thread(0, 3), BAR, 0).unwrap();
        }
        if waits {
            assert_eq!(block.test(thread(1, 5), BAR, false), Ok(true));
        }
        let read = block.read(thread(1, 5), 0);
        if arrives && waits {
            assert_eq!(read, Ok(7));
        } else {
            refused(read, Race, &["by warp 1 lane 5", "its write by warp 0 lane 3"]);
        }
    }
}

#[test]
fn an_arrival_speaks_for_its_lane_only() {
    for sync in [true, false] {
        let mut block = Block::new(2);
        block.init(BAR, 1);
        block.write(thread(0, 4), 0, 7).unwrap();
        if sync {
            block.warp_sync(0, u32::MAX);
        }
        block.arrive(thread(0, 3), BAR, 0).unwrap();
        assert_eq!(block.test(thread(1, 5), BAR, false), Ok(true));
        let read = block.read(thread(1, 5), 0);
        if sync {
            assert_eq!(read, Ok(7));
        } else {
            refused(read, Race, &["its write by warp 0 lane 4"]);
        }
    }
}

#[test]
fn a_test_speaks_for_its_lane_only() {
    let mut block = Block::new(2);
    block.init(BAR, 1);
    block.write(thread(0, 3), 0, 7).unwrap();
    block.arrive(thread(0, 3), BAR, 0).unwrap();
    assert_eq!(block.test(thread(1, 5), BAR, false), Ok(true));
    refused(block.read(thread(1, 6), 0), Race, &["by warp 1 lane 6", "its write by warp 0 lane 3"]);
    block.warp_sync(1, u32::MAX);
    assert_eq!(block.read(thread(1, 6), 0), Ok(7));
    // all lanes of a warp may test
    let mut block = Block::new(2);
    block.init(BAR, 1);
    block.write(thread(0, 3), 0, 7).unwrap();
    block.arrive(thread(0, 3), BAR, 0).unwrap();
    assert_eq!(block.test_warp(1, BAR, false), Ok(true));
    for lane in 0..32 {
        assert_eq!(block.read(thread(1, lane), 0), Ok(7));
    }
}

#[test]
fn all_lanes_may_arrive_and_a_ring_goes_round() {
    // warp 0 fills two stages in turn, warp 1 empties them
    let (full, empty) = (|stage: u32| BAR + stage * 8, |stage: u32| BAR + 16 + stage * 8);
    let run = |skip_wait: Option<u32>| {
        let mut block = Block::new(2);
        for stage in 0..2 {
            block.init(full(stage), 32);
            block.init(empty(stage), 32);
        }
        for round in 0..6_u32 {
            let (stage, parity) = (round % 2, round / 2 % 2 == 1);
            if skip_wait != Some(round) {
                assert!(block.test_warp(0, empty(stage), !parity)?, "the first round finds all stages empty");
            }
            for lane in 0..32 {
                block.write(thread(0, lane), stage * 128 + lane * 4, round)?;
            }
            for lane in 0..32 {
                block.arrive(thread(0, lane), full(stage), 0)?;
            }
            assert!(block.test_warp(1, full(stage), parity)?);
            for lane in 0..32 {
                assert_eq!(block.read(thread(1, lane), stage * 128 + (31 - lane) * 4)?, round);
            }
            for lane in 0..32 {
                block.arrive(thread(1, lane), empty(stage), 0)?;
            }
        }
        block.shared.finish()
    };
    run(None).unwrap();
    run(Some(0)).unwrap();
    refused(run(Some(4)), Race, &["by warp 0 lane 0", "its read by warp 1 lane 31"]);
}

#[test]
fn a_phase_completes_with_its_last_arrival_and_parities_alternate() {
    let mut block = Block::new(1);
    let me = thread(0, 0);
    block.init(BAR, 2);
    assert_eq!(block.test(me, BAR, true), Ok(true), "the phase before the first counts as complete");
    assert_eq!(block.test(me, BAR, false), Ok(false));
    assert_eq!(block.arrive(me, BAR, 0), Ok(0));
    assert_eq!(block.test(me, BAR, false), Ok(false));
    assert!(block.shared.mbarrier_state(BAR).unwrap().contains("phase 0 lacks 1 of 2 arrivals and 0 bytes"));
    assert_eq!(block.shared.mbarrier_test_state(me, BAR, 0), Ok(false));
    assert_eq!(block.arrive(me, BAR, 0), Ok(0));
    assert_eq!(block.shared.mbarrier_test_state(me, BAR, 0), Ok(true));
    assert_eq!(block.test(me, BAR, false), Ok(true));
    assert_eq!(block.test(me, BAR, true), Ok(false), "the wrong parity waits for the next phase");
    assert_eq!(block.arrive(me, BAR, 0), Ok(1));
}

#[test]
fn more_arrivals_than_expected_are_refused() {
    let mut block = Block::new(1);
    block.init(BAR, 4);
    block.arrive(thread(0, 0), BAR, 0).unwrap();
    let text = [
        "mbarrier.arrive of 8 bytes at shared 0x200 by warp 0 lane 1",
        "4 arrivals, but phase 0 waits for 3 more of 4",
    ];
    refused(block.shared.mbarrier_arrive(thread(0, 1), BAR, 4, 0), Invalid, &text);
    refused(block.shared.mbarrier_arrive(thread(0, 1), BAR, 0, 0), Invalid, &["0 arrivals"]);
    // arrivals are complete, but bytes are not: the phase stays, and takes no more
    let mut block = Block::new(1);
    block.init(BAR, 1);
    block.arrive(thread(0, 0), BAR, 16).unwrap();
    refused(block.arrive(thread(0, 0), BAR, 16), Invalid, &["1 arrivals, but phase 0 waits for 0 more of 1"]);
}

#[test]
fn objects_are_initialised_once_and_where_others_see_it() {
    let me = thread(0, 0);
    let mut block = Block::new(2);
    refused(block.arrive(me, BAR, 0), Invalid, &["no mbarrier object was initialised there"]);
    block.write(me, BAR, 1).unwrap();
    refused(block.test(me, BAR, true), Invalid, &["no mbarrier object was initialised there"]);
    refused(block.shared.mbarrier_init(me, BAR + 4, 1), Misaligned, &["expected a multiple of 8"]);
    refused(block.shared.mbarrier_init(me, BAR, 0), Invalid, &["with 0 arrivals, expected 1 to 1048575"]);
    block.shared.begin_instruction(0);
    block.shared.mbarrier_init(me, BAR, 1).unwrap();
    refused(
        block.shared.mbarrier_init(me, BAR, 1),
        Invalid,
        &["it holds an object that warp 0 lane 0 initialised"],
    );
    block.arrive(me, BAR, 0).unwrap();
    refused(
        block.arrive(thread(1, 0), BAR, 0),
        Race,
        &["mbarrier.arrive", "its mbarrier.init by warp 0 lane 0"],
    );
    refused(
        block.test(thread(0, 1), BAR, false),
        Race,
        &["mbarrier.test_wait", "its mbarrier.init by warp 0 lane 0"],
    );
    // plain accesses
    refused(block.read(me, BAR), Invalid, &["read of 4 bytes", "touches an mbarrier object"]);
    refused(block.write(me, BAR + 4, 0), Invalid, &["write of 4 bytes", "touches an mbarrier object"]);
    refused(block.write_bytes(me, BAR + 7, &[0]), Invalid, &["touches an mbarrier object"]);
    refused(block.add(me, BAR, 1), Invalid, &["touches an mbarrier object"]);
    // free again, and used anew
    block.shared.begin_instruction(0);
    block.shared.mbarrier_inval(me, BAR).unwrap();
    refused(block.read(me, BAR), FaultKind::Uninitialised, &["never written"]);
    refused(block.write(thread(1, 0), BAR, 0), Race, &["its write by warp 0 lane 0"]);
    block.init(BAR, 2);
    assert_eq!(block.test(thread(1, 0), BAR, false), Ok(false));
    // memory that others still read is no place for an object
    let mut block = Block::new(2);
    block.write(me, BAR, 1).unwrap();
    block.barrier();
    block.read(thread(1, 0), BAR).unwrap();
    refused(block.shared.mbarrier_init(me, BAR, 1), Race, &["mbarrier.init", "its read by warp 1 lane 0"]);
}

#[test]
fn copies_complete_with_a_phase_that_tracks_them() {
    for noinc in [true, false] {
        let mut block = Block::new(2);
        block.init(BAR, 1);
        let me = thread(0, 7);
        block.copy(me, 0, &[3; 16]).unwrap();
        block.shared.async_commit(me);
        block.copy(me, 16, &[4; 16]).unwrap();
        block.shared.begin_instruction(0);
        block.shared.async_arrive(me, BAR, noinc).unwrap();
        assert_eq!(block.test(thread(1, 0), BAR, false), Ok(noinc));
        if !noinc {
            refused(
                block.read(thread(1, 0), 0),
                Unfinished,
                &["a phase of the mbarrier at 0x200 which is not complete"],
            );
            block.arrive(me, BAR, 0).unwrap();
        }
        refused(block.read(thread(1, 1), 0), Unfinished, &["which is complete, but not waited for"]);
        assert_eq!(block.test(thread(1, 0), BAR, false), Ok(true));
        assert_eq!(block.read(thread(1, 0), 0), Ok(0x0303_0303));
        assert_eq!(block.read(thread(1, 0), 28), Ok(0x0404_0404));
        block.shared.finish().unwrap();
    }
}
