//! Which accesses are ordered, and which race.

use super::*;
use FaultKind::Race;

#[test]
fn a_barrier_orders_a_write_before_reads_of_other_warps() {
    for with_barrier in [true, false] {
        let mut block = Block::new(2);
        block.write(thread(0, 5), 64, 7).unwrap();
        if with_barrier {
            block.barrier();
        }
        let read = block.read(thread(1, 9), 64);
        if with_barrier {
            assert_eq!(read, Ok(7));
        } else {
            let text = [
                "read of 4 bytes at shared 0x40 by warp 1 lane 9: no barrier orders its write by warp 0 lane 5",
            ];
            refused(read, Race, &text);
        }
    }
}

#[test]
fn a_barrier_orders_reads_before_a_write_of_another_warp() {
    for with_barrier in [true, false] {
        let mut block = Block::new(3);
        block.write(thread(0, 0), 64, 7).unwrap();
        block.barrier();
        block.read(thread(1, 4), 64).unwrap();
        block.read(thread(2, 4), 64).unwrap();
        if with_barrier {
            block.barrier();
        }
        let write = block.write(thread(2, 4), 64, 8);
        if with_barrier {
            write.unwrap();
        } else {
            refused(write, Race, &["write of 4 bytes", "by warp 2 lane 4", "its read by warp 1 lane 4"]);
        }
    }
}

#[test]
fn a_loop_needs_two_barriers_a_round() {
    for two in [true, false] {
        let mut block = Block::new(2);
        let mut rounds = || {
            for round in 0..3 {
                for warp in 0..2 {
                    block.write(thread(warp, 0), warp * 4, round)?;
                }
                block.barrier();
                for warp in 0..2 {
                    assert_eq!(block.read(thread(warp, 0), (1 - warp) * 4)?, round);
                }
                if two {
                    block.barrier();
                }
            }
            Ok(())
        };
        let result: Result<(), Refusal> = rounds();
        if two {
            result.unwrap();
        } else {
            refused(
                result,
                Race,
                &["write of 4 bytes at shared 0x0 by warp 0 lane 0", "its read by warp 1 lane 0"],
            );
        }
    }
}

#[test]
fn a_barrier_of_some_warps_does_not_order_the_others() {
    let mut block = Block::new(3);
    block.write(thread(0, 0), 0, 1).unwrap();
    block.shared.begin_instruction(0);
    block.shared.barrier(&[0, 1]);
    assert_eq!(block.read(thread(1, 0), 0), Ok(1));
    refused(block.read(thread(2, 0), 0), Race, &["its write by warp 0 lane 0"]);
    // what warp 1 learned it passes on
    block.shared.begin_instruction(1);
    block.shared.barrier(&[1, 2]);
    assert_eq!(block.read(thread(2, 0), 0), Ok(1));
}

#[test]
fn what_follows_a_barrier_is_not_ordered_by_it() {
    let mut block = Block::new(2);
    block.barrier();
    block.write(thread(0, 0), 0, 1).unwrap();
    refused(block.read(thread(1, 0), 0), Race, &["its write by warp 0 lane 0"]);
}

#[test]
fn a_warp_may_arrive_without_waiting() {
    let mut block = Block::new(3);
    block.write(thread(0, 0), 0, 1).unwrap();
    block.write(thread(1, 0), 8, 1).unwrap();
    block.shared.barrier_arrive(3, 0);
    // what it does after its arrival is not ordered, and it learns nothing
    block.write(thread(0, 0), 4, 1).unwrap();
    block.shared.begin_instruction(1);
    block.shared.barrier_complete(3, &[1]);
    assert_eq!(block.read(thread(1, 5), 0), Ok(1));
    refused(block.read(thread(1, 5), 4), Race, &["its write by warp 0 lane 0"]);
    refused(block.read(thread(0, 0), 8), Race, &["its write by warp 1 lane 0"]);
    refused(block.read(thread(2, 0), 0), Race, &["its write by warp 0 lane 0"]);
    // the next round of the same barrier knows nothing of this one
    block.shared.barrier_complete(3, &[1, 2]);
    assert_eq!(block.read(thread(2, 0), 0), Ok(1), "warp 1 passes on what it learned");
    refused(block.read(thread(2, 0), 4), Race, &["its write by warp 0 lane 0"]);
}

#[test]
fn lanes_of_a_warp_are_ordered_by_a_warp_sync() {
    for with_sync in [true, false] {
        let mut block = Block::new(1);
        block.write(thread(0, 0), 0, 1).unwrap();
        assert_eq!(block.read(thread(0, 0), 0), Ok(1), "a thread is ordered after itself");
        if with_sync {
            block.warp_sync(0, u32::MAX);
        }
        let read = block.read(thread(0, 1), 0);
        if with_sync {
            assert_eq!(read, Ok(1));
        } else {
            refused(read, Race, &["by warp 0 lane 1: no `bar.warp.sync` orders its write by warp 0 lane 0"]);
        }
        // and the other way
        let mut block = Block::new(1);
        block.write(thread(0, 1), 0, 1).unwrap();
        block.warp_sync(0, u32::MAX);
        block.read(thread(0, 0), 0).unwrap();
        if with_sync {
            block.warp_sync(0, u32::MAX);
        }
        let write = block.write(thread(0, 1), 0, 2);
        if with_sync {
            write.unwrap();
        } else {
            refused(write, Race, &["by warp 0 lane 1", "its read by warp 0 lane 0"]);
        }
    }
}

#[test]
fn a_sync_of_some_lanes_orders_those() {
    let mut block = Block::new(1);
    block.write(thread(0, 0), 0, 1).unwrap();
    block.warp_sync(0, 0b0011);
    assert_eq!(block.read(thread(0, 1), 0), Ok(1));
    refused(block.read(thread(0, 2), 0), Race, &["its write by warp 0 lane 0"]);
    // lane 1 passes it on
    block.warp_sync(0, 0b0110);
    assert_eq!(block.read(thread(0, 2), 0), Ok(1));
    refused(block.read(thread(0, 3), 0), Race, &["its write by warp 0 lane 0"]);
    block.warp_sync(0, u32::MAX);
    assert_eq!(block.read(thread(0, 3), 0), Ok(1));
    // a barrier joins what only some lanes knew
    let mut block = Block::new(2);
    block.write(thread(0, 0), 0, 1).unwrap();
    block.warp_sync(0, 0b0011);
    block.barrier();
    assert_eq!(block.read(thread(1, 30), 0), Ok(1));
}

#[test]
fn lanes_of_one_instruction_may_not_write_the_same_bytes() {
    let mut block = Block::new(1);
    block.shared.begin_instruction(0);
    block.shared.write(thread(0, 0), 0, &[1; 8]).unwrap();
    refused(
        block.shared.write(thread(0, 1), 4, &[1; 4]),
        Race,
        &["by warp 0 lane 1", "its write by warp 0 lane 0"],
    );
    // halves of a word are different bytes
    let mut block = Block::new(1);
    block.shared.begin_instruction(0);
    for lane in 0..32 {
        block.shared.write(thread(0, lane), lane * 2, &u16::try_from(lane).unwrap().to_le_bytes()).unwrap();
    }
    refused(block.shared.write(thread(0, 32 - 1), 4, &[0; 2]), Race, &["its write by warp 0 lane 2"]);
}

#[test]
fn halves_of_a_word_have_writers_of_their_own() {
    let mut block = Block::new(2);
    block.write_bytes(thread(0, 0), 0, &[1, 0]).unwrap();
    block.write_bytes(thread(1, 0), 2, &[2, 0]).unwrap();
    assert_eq!(block.read_half(thread(0, 0), 0), Ok(1));
    assert_eq!(block.read_half(thread(1, 0), 2), Ok(2));
    refused(
        block.read_half(thread(0, 0), 2),
        Race,
        &["read of 2 bytes at shared 0x2", "its write by warp 1 lane 0"],
    );
    refused(block.read(thread(1, 0), 0), Race, &["its write by warp 0 lane 0"]);
    block.barrier();
    assert_eq!(block.read(thread(0, 7), 0), Ok(0x0002_0001));
    // each updates its own half of the word
    block.barrier();
    for (warp, at) in [(0, 0), (1, 2)] {
        let old = block.read_half(thread(warp, 0), at).unwrap();
        block.write_bytes(thread(warp, 0), at, &(old + 1).to_le_bytes()).unwrap();
    }
    block.barrier();
    assert_eq!(block.read(thread(0, 7), 0), Ok(0x0003_0002));
    block.barrier();
    // a whole word again, which forgets the halves
    block.write(thread(1, 1), 0, 9).unwrap();
    assert_eq!(block.read(thread(1, 1), 0), Ok(9));
    refused(block.read_half(thread(0, 0), 2), Race, &["its write by warp 1 lane 1"]);
}

#[test]
fn halves_written_by_one_instruction_have_a_lane_each() {
    let mut block = Block::new(1);
    block.shared.begin_instruction(0);
    block.shared.write(thread(0, 4), 8, &[1, 0]).unwrap();
    block.shared.write(thread(0, 5), 10, &[2, 0]).unwrap();
    refused(block.read(thread(0, 4), 8), Race, &["its write by warp 0 lane 5"]);
    refused(block.read(thread(0, 5), 8), Race, &["its write by warp 0 lane 4"]);
    assert_eq!(block.read_half(thread(0, 5), 10), Ok(2));
    block.warp_sync(0, u32::MAX);
    assert_eq!(block.read(thread(0, 5), 8), Ok(0x0002_0001));
}

#[test]
fn every_reader_is_remembered() {
    // warp 0 reads from many lanes at many times, warp 1 once; each of them can be the one that races
    for skip in 0..3 {
        let mut block = Block::new(3);
        block.write(thread(2, 0), 0, 1).unwrap();
        block.barrier();
        for lane in [3, 4, 3, 9] {
            block.read(thread(0, lane), 0).unwrap();
        }
        block.read(thread(1, 8), 0).unwrap();
        let arrive: Vec<u32> = (0..3).filter(|&warp| warp != skip).collect();
        block.shared.begin_instruction(2);
        block.shared.barrier(&arrive);
        let write = block.write(thread(2, 0), 0, 2);
        match skip {
            0 => refused(write, Race, &["its read by warp 0 lane 9"]),
            1 => refused(write, Race, &["its read by warp 1 lane 8"]),
            _ => refused(write, Race, &["its read by warp 0"]),
        }
    }
    // lanes that read before the latest reader
    let mut block = Block::new(1);
    block.write(thread(0, 0), 0, 1).unwrap();
    block.warp_sync(0, u32::MAX);
    block.read(thread(0, 3), 0).unwrap();
    block.read(thread(0, 0), 0).unwrap();
    refused(block.write(thread(0, 0), 0, 2), Race, &["its read by warp 0 lane 3"]);
}

#[test]
fn wide_accesses_are_checked_word_by_word() {
    let mut block = Block::new(2);
    block.write_bytes(thread(0, 0), 32, &[3; 16]).unwrap();
    block.barrier();
    block.write(thread(1, 2), 44, 4).unwrap();
    block.shared.begin_instruction(0);
    let mut eight = [0; 8];
    block.shared.read(thread(0, 0), 32, &mut eight).unwrap();
    assert_eq!(eight, [3; 8]);
    let read = block.shared.read(thread(0, 0), 32, &mut [0; 16]);
    refused(read, Race, &["read of 16 bytes at shared 0x20", "its write by warp 1 lane 2"]);
    let write = block.write_bytes(thread(1, 2), 32, &[0; 16]);
    refused(write, Race, &["write of 16 bytes", "its read by warp 0 lane 0"]);
}
