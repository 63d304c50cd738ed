"""Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011) in numpy."""

import numpy as np

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK32 = np.uint64(0xFFFFFFFF)

# Random123's kat_vectors, `philox4x32 10`: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def philox4x32_10(counter, key):
    """Four words a counter; every word of `counter` and `key` an array (or number) of 32-bit values."""
    words = np.broadcast_arrays(*(np.asarray(w, dtype=np.uint64) for w in (*counter, *key)))
    c0, c1, c2, c3, k0, k1 = words
    for i in range(10):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = ((p1 >> np.uint64(32)) ^ c1 ^ k0, p1 & MASK32, (p0 >> np.uint64(32)) ^ c3 ^ k1, p0 & MASK32)
        k0, k1 = (k0 + np.uint64(WEYL[0])) & MASK32, (k1 + np.uint64(WEYL[1])) & MASK32
    return c0, c1, c2, c3


for known_counter, known_key, known_words in KNOWN:
    assert tuple(int(w) for w in philox4x32_10(known_counter, known_key)) == known_words


def uniform(seeds, row_keys, step, codebooks):
    """[rows, codebooks] multiples of 2^-24 in [0, 1), one draw a row and codebook at a step."""
    seeds = [int(s) for s in seeds]
    low, high = (np.array([(s >> shift) & 0xFFFFFFFF for s in seeds], np.uint64)[:, None] for shift in (0, 32))
    counter = (np.array(row_keys, np.uint64)[:, None], step, np.arange(codebooks, dtype=np.uint64)[None], 0)
    word = philox4x32_10(counter, (low, high))[0]
    return (word >> np.uint64(8)).astype(np.float64) * 2.0**-24
