//! Atomics beside ordinary accesses.

use super::*;
use FaultKind::Race;

#[test]
fn atomics_do_not_race_with_atomics() {
    let mut block = Block::new(4);
    block.write(thread(0, 0), 0, 0).unwrap();
    block.barrier();
    for warp in 0..4 {
        block.shared.begin_instruction(warp);
        for lane in 0..32 {
            let old = block.shared.atomic(thread(warp, lane), 0, 4, &|v| v + 1).unwrap();
            assert_eq!(old, u64::from(warp * 32 + lane));
        }
    }
    block.barrier();
    assert_eq!(block.read(thread(3, 1), 0), Ok(128));
    block.barrier();
    block.add(thread(2, 0), 0, 1).unwrap();
    block.barrier();
    block.write(thread(0, 0), 0, 5).unwrap();
    assert_eq!(block.read(thread(0, 0), 0), Ok(5));
}

#[test]
fn atomics_race_with_ordinary_accesses() {
    let start = || {
        let mut block = Block::new(3);
        block.write(thread(0, 0), 0, 0).unwrap();
        block
    };
    let mut block = start();
    refused(block.add(thread(1, 0), 0, 1), Race, &["atomic of 4 bytes", "its write by warp 0 lane 0"]);

    // the first atomic is ordered after the write, the second is not
    let mut block = start();
    block.shared.barrier(&[0, 1]);
    block.add(thread(1, 0), 0, 1).unwrap();
    refused(block.add(thread(2, 0), 0, 1), Race, &["by warp 2 lane 0", "its write by warp 0 lane 0"]);

    let mut block = start();
    block.barrier();
    block.add(thread(1, 3), 0, 1).unwrap();
    block.add(thread(2, 4), 0, 1).unwrap();
    refused(block.read(thread(1, 3), 0), Race, &["read of 4 bytes", "its atomic by warp 2 lane 4"]);
    refused(block.write(thread(2, 4), 0, 1), Race, &["write of 4 bytes", "its atomic by warp 1 lane 3"]);

    let mut block = start();
    block.barrier();
    block.read(thread(2, 9), 0).unwrap();
    refused(block.add(thread(1, 0), 0, 1), Race, &["its read by warp 2 lane 9"]);

    // an ordinary read between atomics
    let mut block = start();
    block.barrier();
    block.add(thread(1, 0), 0, 1).unwrap();
    block.barrier();
    assert_eq!(block.read(thread(2, 9), 0), Ok(1));
    refused(block.add(thread(1, 0), 0, 1), Race, &["its read by warp 2 lane 9"]);
}

#[test]
fn atomics_of_eight_bytes_touch_both_words() {
    let mut block = Block::new(2);
    block.write_bytes(thread(0, 0), 8, &0xffff_ffff_u64.to_le_bytes()).unwrap();
    block.barrier();
    block.shared.begin_instruction(0);
    assert_eq!(block.shared.atomic(thread(0, 0), 8, 8, &|v| v + 1), Ok(0xffff_ffff));
    refused(block.read(thread(1, 0), 12), Race, &["its atomic by warp 0 lane 0"]);
    block.barrier();
    assert_eq!((block.read(thread(1, 0), 8), block.read(thread(1, 0), 12)), (Ok(0), Ok(1)));
}

#[test]
fn parts_of_a_word_that_atomics_touched() {
    let mut block = Block::new(2);
    block.write(thread(0, 0), 0, 0x0102_0304).unwrap();
    block.barrier();
    block.add(thread(0, 0), 0, 1).unwrap();
    refused(block.read_half(thread(1, 0), 2), Race, &["read of 2 bytes", "its atomic by warp 0 lane 0"]);
    block.barrier();
    assert_eq!(block.read_half(thread(1, 0), 0), Ok(0x0305));
    block.write_bytes(thread(1, 0), 2, &[9, 9]).unwrap();
    assert_eq!(block.read(thread(1, 0), 0), Ok(0x0909_0305));
    refused(block.read(thread(0, 0), 0), Race, &["its write by warp 1 lane 0"]);
    block.barrier();
    // and an atomic on a word written in parts
    assert_eq!(block.add(thread(0, 0), 0, 1), Ok(0x0909_0305));
}
