//! Memory of buffers.

use crate::ptx_sim::memory::{Allocation, Global, Window};
use std::sync::Arc;

fn bytes(allocation: &Allocation, at: usize, len: usize) -> Vec<u8> {
    let mut into = vec![0; len];
    allocation.download(at, &mut into);
    into
}

fn written(allocation: &Allocation) -> Vec<bool> {
    (0..allocation.bytes()).map(|at| allocation.first_unwritten(at, 1).is_none()).collect()
}

#[test]
fn uploads_land_at_any_offset_and_length() {
    for at in 0..9 {
        for len in 0..20 {
            let allocation = Allocation::new(31);
            let data: Vec<u8> = (1..).take(len).collect();
            allocation.upload(at, &data);
            let mut expected = vec![0xcd; 31];
            expected[at..at + len].copy_from_slice(&data);
            assert_eq!(bytes(&allocation, 0, 31), expected, "{len} bytes at {at}");
            assert_eq!(bytes(&allocation, at, len), data);
            let marks: Vec<bool> = (0..31).map(|i| (at..at + len).contains(&i)).collect();
            assert_eq!(written(&allocation), marks, "{len} bytes at {at}");
        }
    }
}

#[test]
fn forgotten_bytes_keep_their_values_but_count_as_unwritten() {
    let allocation = Allocation::new(16);
    allocation.upload(0, &[9; 16]);
    allocation.forget(3, 6);
    let marks: Vec<bool> = (0..16).map(|i| !(3..9).contains(&i)).collect();
    assert_eq!(written(&allocation), marks);
    assert_eq!(bytes(&allocation, 0, 16), [9; 16]);
}

#[test]
fn copies_carry_what_was_written() {
    for (at, from_at, len) in [(0, 0, 24), (4, 8, 13), (1, 3, 11), (2, 2, 6), (8, 5, 0)] {
        let from = Allocation::new(32);
        let data: Vec<u8> = (0..32).collect();
        from.upload(0, &data);
        from.forget(6, 5);
        let to = Allocation::new(32);
        to.upload(0, &[0xee; 32]);
        to.copy_from(at, &from, from_at, len);
        let mut expected = vec![0xee; 32];
        expected[at..at + len].copy_from_slice(&data[from_at..from_at + len]);
        assert_eq!(bytes(&to, 0, 32), expected, "{len} bytes from {from_at} to {at}");
        let source = written(&from);
        let marks: Vec<bool> =
            (0..32).map(|i| !(at..at + len).contains(&i) || source[i - at + from_at]).collect();
        assert_eq!(written(&to), marks, "{len} bytes from {from_at} to {at}");
    }
}

#[test]
#[should_panic(expected = "4 bytes at 6 do not lie in 8")]
fn uploads_past_the_end_are_our_own_fault() {
    Allocation::new(8).upload(6, &[0; 4]);
}

#[test]
fn threads_add_up_and_do_not_disturb_neighbours() {
    let allocation = Arc::new(Allocation::new(64));
    allocation.upload(0, &[0; 64]);
    let window =
        Window { name: "sums".into(), allocation: allocation.clone(), offset: 0, bytes: 64, writable: true };
    let global = Global::new(vec![window]);
    let base = global.address(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let global = &global;
            scope.spawn(move || {
                for round in 0..10_000_u32 {
                    global.atomic(base, 4, &|v| v + 1).unwrap();
                    global.atomic(base + 8, 8, &|v| v + (1 << 30)).unwrap();
                    // single bytes of one word, each of one thread
                    let [byte, ..] = round.to_le_bytes();
                    global.write(base + 16 + u64::from(thread), &[byte]).unwrap();
                    let mut back = [0];
                    global.read(base + 16 + u64::from(thread), &mut back).unwrap();
                    assert_eq!(back, [byte]);
                }
            });
        }
    });
    assert_eq!(bytes(&allocation, 0, 4), 40_000_u32.to_le_bytes());
    assert_eq!(bytes(&allocation, 8, 8), (40_000_u64 << 30).to_le_bytes());
}
