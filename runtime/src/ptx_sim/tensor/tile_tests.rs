use auscult_kernels::{DType, Swizzle, TensorMap};

use super::{Chunk, Tile};

/// 100 columns of f16 (padded to 104), 50 rows, 3 planes.
fn map(swizzle: Swizzle) -> TensorMap {
    TensorMap {
        slot: 0,
        dtype: DType::F16,
        extents: vec![100, 50, 3],
        strides: vec![208, 208 * 50],
        tile: vec![64, 16, 1],
        swizzle,
    }
}

const BASE: u64 = 0x100_0000_0000;

fn chunks(map: &TensorMap, coordinates: &[i32], shared: u32) -> Vec<Chunk> {
    Tile::new(map, BASE).unwrap().chunks(coordinates, shared).unwrap().collect()
}

/// Plays a load over memory whose bytes are a hash of their address, then compares element by element.
fn check(map: &TensorMap, coordinates: &[i32], shared: u32) {
    let byte = |address: u64| u8::try_from((address.wrapping_mul(2_654_435_761) >> 7) % 251).unwrap();
    let size = map.dtype.size();
    let tile = Tile::new(map, BASE).unwrap();
    let mut memory = vec![0xee; shared as usize + tile.bytes() as usize];
    for chunk in chunks(map, coordinates, shared) {
        let mut bytes = [0; 16];
        for i in 0..chunk.inside {
            bytes[(chunk.before + i) as usize] = byte(chunk.global + u64::from(i));
        }
        memory[chunk.shared as usize..][..16].copy_from_slice(&bytes);
    }
    let counts: Vec<usize> = map.tile.iter().map(|t| *t as usize).collect();
    for index in 0..counts.iter().product() {
        let (mut rest, mut global, mut within) = (index, i128::from(BASE), true);
        for (axis, count) in counts.iter().enumerate() {
            let at = i128::from(coordinates[axis]) + (rest % count) as i128;
            rest /= count;
            let stride = if axis == 0 { size as i128 } else { i128::from(map.strides[axis - 1]) };
            within &= at >= 0 && at < i128::from(map.extents[axis]);
            global += at * stride;
        }
        let linear = index * size;
        let place = match map.swizzle {
            Swizzle::None => linear,
            // chunk c of row r at c ^ (r % 8)
            Swizzle::Bytes128 => {
                let (row, column) = (linear / 128, linear % 128);
                row * 128 + ((column / 16) ^ (row % 8)) * 16 + column % 16
            }
        };
        for i in 0..size {
            let want = if within { byte(u64::try_from(global).unwrap() + i as u64) } else { 0 };
            assert_eq!(memory[shared as usize + place + i], want, "{coordinates:?} element {index} byte {i}");
        }
    }
}

#[test]
fn tiles_inside_across_and_outside_the_tensor() {
    for swizzle in [Swizzle::None, Swizzle::Bytes128] {
        for coordinates in [
            [0, 0, 0],
            [8, 3, 2],
            [3, 5, 1],
            [64, 40, 2],
            [-5, -3, 0],
            [93, 0, 1],
            [100, 0, 0],
            [0, 60, 0],
            [0, 0, -1],
        ] {
            check(&map(swizzle), &coordinates, 0x400);
        }
    }
}

#[test]
fn other_ranks_and_types() {
    let line = TensorMap {
        slot: 0,
        dtype: DType::F32,
        extents: vec![37],
        strides: vec![],
        tile: vec![32],
        swizzle: Swizzle::Bytes128,
    };
    for first in [-2, 0, 7, 36] {
        check(&line, &[first], 0x800);
    }
    let mut planes = map(Swizzle::None);
    planes.tile = vec![24, 5, 3];
    for coordinates in [[0, 0, 0], [90, 48, 1], [-7, -2, -1]] {
        check(&planes, &coordinates, 0x80);
    }
}

#[test]
fn edges_by_hand() {
    // columns 96..104 of row 0: four elements inside, four beyond
    let all = chunks(&map(Swizzle::None), &[96, 0, 0], 0x400);
    assert_eq!(all[0], Chunk { shared: 0x400, global: BASE + 192, before: 0, inside: 8 });
    assert_eq!(all[1], Chunk { shared: 0x410, global: 0, before: 16, inside: 0 });
    // columns -3..5: three before, five inside
    let all = chunks(&map(Swizzle::None), &[-3, 1, 2], 0x400);
    assert_eq!(all[0], Chunk { shared: 0x400, global: BASE + 2 * 208 * 50 + 208, before: 6, inside: 10 });
    // row 9 of the tile, chunk 2: 0x400 + 9 * 128 + (2 ^ 1) * 16
    let all = chunks(&map(Swizzle::Bytes128), &[0, 0, 0], 0x400);
    assert_eq!(
        all[74],
        Chunk { shared: 0x400 + 1152 + 48, global: BASE + 9 * 208 + 32, before: 0, inside: 16 }
    );
    assert_eq!(all.len(), 128);
}

#[test]
fn a_barrier_expects_the_whole_tile() {
    assert_eq!(Tile::new(&map(Swizzle::None), BASE).unwrap().bytes(), 64 * 16 * 2);
}

#[test]
fn maps_that_the_driver_refuses_are_refused() {
    type Change = fn(&mut TensorMap);
    let cases: [(Change, &str); 10] = [
        (|m| m.strides[0] = 200, "has a stride of 200 bytes, expected a positive multiple of 16 below 2^40"),
        (|m| m.strides[1] = 0, "has a stride of 0 bytes"),
        (|m| m.strides[1] = 1 << 40, "has a stride of 1099511627776 bytes"),
        (|m| m.tile[1] = 257, "has a tile size of 257, expected 1 to 256"),
        (|m| m.tile[1] = 0, "has a tile size of 0, expected 1 to 256"),
        (|m| m.extents[2] = 0, "has an extent of 0, expected 1 to 2^32"),
        (|m| m.tile[0] = 60, "copies rows of 120 bytes, expected a multiple of 16"),
        (|m| m.tile[0] = 72, "copies rows of 144 bytes, expected at most 128 (its 128-byte swizzle)"),
        (|m| m.tile[0] = 32, "not supported: tensor map copies rows of 64 bytes, expected 128"),
        (|m| m.strides.truncate(1), "has 3 extents, 1 strides and 3 tile sizes"),
    ];
    for (change, want) in cases {
        let mut map = map(Swizzle::Bytes128);
        change(&mut map);
        let refused = Tile::new(&map, BASE).unwrap_err().to_string();
        assert!(refused.contains(want), "{refused}");
    }
    let refused = Tile::new(&map(Swizzle::None), BASE + 8).unwrap_err().to_string();
    assert_eq!(refused, "invalid: tensor map begins at 0x10000000008, expected a multiple of 16");
}

#[test]
fn tiles_are_aligned_and_have_every_coordinate() {
    for (swizzle, shared, want) in [
        (
            Swizzle::None,
            0x440,
            "misaligned: tile at 0x440 in shared memory, expected a multiple of 128 (tile copies)",
        ),
        (
            Swizzle::Bytes128,
            0x480,
            "misaligned: tile at 0x480 in shared memory, expected a multiple of 1024 (the 128-byte swizzle repeats there)",
        ),
    ] {
        let map = map(swizzle);
        let tile = Tile::new(&map, BASE).unwrap();
        assert_eq!(tile.chunks(&[0, 0, 0], shared).err().unwrap().to_string(), want);
        assert_eq!(
            tile.chunks(&[0, 0], 0x400).err().unwrap().to_string(),
            "invalid: tile copy gives 2 coordinates, expected 3 (the rank of its tensor map)"
        );
    }
}
