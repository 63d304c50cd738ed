use super::{Descriptor, Kind, Major, Operand};

/// A descriptor: start, leading and stride offsets in bytes, swizzle mode.
pub(crate) fn descriptor(start: u64, leading: u64, stride: u64, mode: u64) -> u64 {
    start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62
}

fn operand(bits: u64, kind: Kind, major: Major, extent: u32) -> Operand {
    Operand::new("b", bits, kind, major, extent).unwrap()
}

/// Byte address of element (mn, k).
fn address(operand: &Operand, mn: u32, k: u32) -> u32 {
    let size = operand.kind.size();
    match operand.major {
        Major::K => operand.along_k(mn, k * size / 16) + k * size % 16,
        Major::Mn => operand.along_mn(mn / 8, k) + mn % 8 * size,
    }
}

/// `Swizzle<bits, 4, 3>` of CuTe.
fn swizzle(bits: u32, offset: u32) -> u32 {
    offset ^ (offset >> 3 & ((1 << bits) - 1) << 4)
}

#[test]
fn fields_are_where_the_isa_puts_them() {
    let bits = 1 << 62 | 64 << 32 | 1 << 16 | 0x40;
    let decoded = Descriptor::decode(bits).unwrap();
    assert_eq!(decoded, Descriptor { start: 0x400, leading: 16, stride: 1024, width: 8 });
    assert_eq!(bits, descriptor(0x400, 16, 1024, 1));
    for (mode, width) in [(0, 1), (1, 8), (2, 4), (3, 2)] {
        assert_eq!(Descriptor::decode(descriptor(0, 0, 0, mode)).unwrap().width, width);
    }
}

// The examples of the ISA's "Canonical Layouts": exact layout, then LBO and SBO in elements.

#[test]
fn k_major_tf32_without_swizzle_is_figure_166() {
    let operand = operand(descriptor(0, 64 * 4, 32 * 4, 0), Kind::Tf32, Major::K, 16);
    for mn in 0..16 {
        for k in 0..8 {
            // ((8,2),(4,4)):((4,32),(1,64))
            assert_eq!(
                address(&operand, mn, k),
                4 * (mn % 8 * 4 + mn / 8 * 32 + k % 4 + k / 4 * 64),
                "{mn} {k}"
            );
        }
    }
}

#[test]
fn k_major_tf32_with_32_bytes_is_figure_167() {
    // ((8,2),(4,4)):((8,64),(1,4)), where the figure's k goes on for two patterns; one instruction sees (4,2)
    let operand = operand(descriptor(0, 0, 64 * 4, 3), Kind::Tf32, Major::K, 16);
    for mn in 0..16 {
        for k in 0..8 {
            let linear = 4 * (mn % 8 * 8 + mn / 8 * 64 + k % 4 + k / 4 * 4);
            assert_eq!(address(&operand, mn, k), swizzle(1, linear), "{mn} {k}");
        }
    }
}

#[test]
fn mn_major_bf16_is_figures_168_to_170() {
    // ((8,1,2),(8,2)):((1,8,64),(8,128)): LBO 128, SBO 64
    let plain = operand(descriptor(0, 128 * 2, 64 * 2, 0), Kind::Bf16, Major::Mn, 16);
    // ((8,2,2),(8,2)):((1,8,128),(16,256)): LBO 128, SBO 256
    let narrow = operand(descriptor(0, 128 * 2, 256 * 2, 3), Kind::Bf16, Major::Mn, 32);
    // ((8,4,2),(8,2)):((1,8,256),(32,512)): LBO 256, SBO 512
    let wide = operand(descriptor(0, 256 * 2, 512 * 2, 2), Kind::Bf16, Major::Mn, 64);
    for k in 0..16 {
        for mn in 0..16 {
            let linear = mn % 8 + mn / 8 * 64 + k % 8 * 8 + k / 8 * 128;
            assert_eq!(address(&plain, mn, k), 2 * linear, "{mn} {k}");
        }
        for mn in 0..32 {
            let linear = mn % 8 + mn / 8 % 2 * 8 + mn / 16 * 128 + k % 8 * 16 + k / 8 * 256;
            assert_eq!(address(&narrow, mn, k), swizzle(1, 2 * linear), "{mn} {k}");
        }
        for mn in 0..64 {
            let linear = mn % 8 + mn / 8 % 4 * 8 + mn / 32 * 256 + k % 8 * 32 + k / 8 * 512;
            assert_eq!(address(&wide, mn, k), swizzle(2, 2 * linear), "{mn} {k}");
        }
    }
}

#[test]
fn k_major_128_bytes_reads_what_a_tile_copy_wrote() {
    // a tile of 64-element rows at 0x2000: chunk c of row r lies at chunk c ^ (r % 8)
    for first in [0, 16, 32, 48] {
        let operand = operand(descriptor(0x2000 + 2 * first, 0, 1024, 1), Kind::F16, Major::K, 64);
        for mn in 0..64 {
            for k in 0..16 {
                let column = u32::try_from(first).unwrap() + k;
                let want = 0x2000 + 128 * mn + 16 * ((column / 8) ^ (mn % 8)) + 2 * (column % 8);
                assert_eq!(address(&operand, mn, k), want, "first {first} row {mn} k {k}");
            }
        }
    }
}

#[test]
fn mn_major_128_bytes_reads_what_tile_copies_wrote() {
    // two tiles of [64 k][64 columns], 8192 bytes each, side by side: columns 64.. are LBO away, eight k are SBO away
    for first in [0, 16, 32, 48] {
        let start = u64::from(0x4000 + 128 * first);
        let operand = operand(descriptor(start, 8192, 1024, 1), Kind::F16, Major::Mn, 128);
        for mn in 0..128 {
            for k in 0..16 {
                let row = first + k;
                let want =
                    0x4000 + 8192 * (mn / 64) + 128 * row + 16 * ((mn % 64 / 8) ^ (row % 8)) + 2 * (mn % 8);
                assert_eq!(address(&operand, mn, k), want, "first {first} column {mn} k {k}");
            }
        }
    }
}

#[test]
fn k_major_64_bytes_by_hand() {
    // row 5 of a 64-byte swizzle begins at 320 = 0b1_0100_0000: bits 7-8 are 2, so chunk 1 moves to chunk 1 ^ 2 = 3
    let operand = operand(descriptor(0x800, 0, 512, 2), Kind::Bf16, Major::K, 16);
    assert_eq!(address(&operand, 5, 8), 0x800 + 320 + 48);
    // row 13 is row 5 of the next pattern
    assert_eq!(address(&operand, 13, 8), 0x800 + 512 + 320 + 48);
    assert_eq!(address(&operand, 0, 8), 0x800 + 16);
}

#[test]
fn offsets_that_are_not_used_may_be_anything() {
    for bits in [descriptor(0x400, 0, 0, 1), descriptor(0x400, 16, 48, 1)] {
        assert!(Operand::new("b", bits, Kind::F16, Major::K, 8).is_ok());
    }
    assert!(Operand::new("b", descriptor(0x400, 16, 1024, 1), Kind::F16, Major::Mn, 64).is_ok());
}

#[test]
fn malformed_descriptors_are_refused() {
    let k = (Kind::F16, Major::K);
    let mn = (Kind::F16, Major::Mn);
    let cases = [
        (descriptor(0x400, 16, 1024, 1) | 1 << 46, k, 64, "unused bits 0x400000000000 set"),
        (descriptor(0x400, 16, 1024, 1) | 1 << 61, k, 64, "unused bits 0x2000000000000000 set"),
        (descriptor(0x400, 16, 1024, 1) | 1 << 15, k, 64, "unused bits 0x8000 set"),
        (descriptor(0x480, 16, 1024, 1) | 1 << 49, k, 64, "base offset 1, expected 0"),
        (descriptor(0x480, 16, 1024, 1), k, 64, "`b` starts at 0x480, 128 bytes into its 128-byte swizzle"),
        (descriptor(0x470, 16, 1024, 1), k, 64, "`b` starts at 0x470, 112 bytes into its 128-byte swizzle"),
        (descriptor(0x420, 16, 1024, 1), mn, 64, "`b` starts at 0x420, expected a multiple of 1024"),
        (descriptor(0x100, 16, 512, 2), mn, 32, "`b` starts at 0x100, expected a multiple of 512"),
        (
            descriptor(0x400, 16, 128, 1),
            k,
            64,
            "stride dimension offset of 128 bytes, expected a multiple of 1024",
        ),
        (
            descriptor(0x400, 16, 0, 1),
            k,
            16,
            "stride dimension offset of 0 bytes, expected a multiple of 1024",
        ),
        (
            descriptor(0x400, 16, 1024, 1),
            mn,
            128,
            "leading dimension offset of 16 bytes, expected a multiple of 1024",
        ),
        (
            descriptor(0x400, 16, 1024, 0),
            k,
            64,
            "leading dimension offset of 16 bytes, expected at least 128",
        ),
        (descriptor(0x400, 128, 64, 0), k, 64, "stride dimension offset of 64 bytes, expected at least 128"),
        (
            descriptor(0x400, 128, 256, 3),
            (Kind::Tf32, Major::Mn),
            64,
            "only 16-bit elements may be transposed",
        ),
    ];
    for (bits, (kind, major), extent, want) in cases {
        let refused = Operand::new("b", bits, kind, major, extent).unwrap_err().to_string();
        assert!(refused.contains(want), "{bits:#x}: {refused}");
    }
}
