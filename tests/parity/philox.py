"""Bracket's random numbers in NumPy, from the published algorithm and the layouts documented in
include/bracket/random.h, kernels/ops.h, kernels/formula/permutation.h and
kernels/formula/image_noise.h.

Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""
import numpy as np

STREAMS = {"energy_init": 1, "generator_init": 2, "data": 3, "energy_latent": 4, "penalty_probe": 5,
           "generator_latent": 6, "sampling": 9, "energy_start": 11, "test": 63}


def philox4x32_10(counter, key):
    """Ten rounds on counters [n, 4] under one key [2]; all words are 32 bits wide."""
    c = [counter[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = int(key[0]), int(key[1])
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(product1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), product1 & low,
             (product0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), product0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).astype(np.uint32)


def check_known_answers():
    """The three vectors of Random123's kat_vectors file for philox4x32, 10 rounds."""
    ones = 0xFFFFFFFF
    known = [([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
             ([ones] * 4, [ones] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
             ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
              [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1])]
    for counter, key, expected in known:
        assert philox4x32_10(np.array([counter], dtype=np.uint32), key)[0].tolist() == expected, (counter, key)


def words(seed, stream, step, count, first=0):
    """Words of elements first .. first + count - 1."""
    start = first // 4
    block = np.arange(start, (first + count + 3) // 4, dtype=np.uint64)
    sequence = (STREAMS[stream] << 48) | (step & ((1 << 48) - 1))
    counter = np.empty((len(block), 4), dtype=np.uint32)
    counter[:, 0], counter[:, 1] = block & np.uint64(0xFFFFFFFF), block >> np.uint64(32)
    counter[:, 2], counter[:, 3] = sequence & 0xFFFFFFFF, sequence >> 32
    flat = philox4x32_10(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)
    return flat[first - 4 * start :][:count]


def uniforms(seed, stream, step, count):
    """(word + 1/2) 2^-32, exact."""
    return (words(seed, stream, step, count).astype(np.float64) + 0.5) * 2.0**-32


def normals(seed, stream, step, count):
    """Box-Muller on pairs of words: r sin(a), r cos(a)."""
    pairs = uniforms(seed, stream, step, count + count % 2).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log(pairs[:, 0])), 2 * np.pi * pairs[:, 1]
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1).reshape(-1)[:count]


def permute(index, seed, stream, epoch, size):
    """Image of `index` under the permutation of {0, .., size - 1} that belongs to an epoch: a Feistel network of twelve
    rounds, walked until it lands below size."""

    def mix(x):
        x ^= x >> 16
        x = x * 0x7FEB352D & 0xFFFFFFFF
        x ^= x >> 15
        x = x * 0x846CA68B & 0xFFFFFFFF
        return x ^ x >> 16

    keys = [int(w) for w in words(seed, stream, epoch, 12)]
    bits = max(6, (size - 1).bit_length())
    left_bits, right_bits = bits // 2, bits - bits // 2
    left_mask, right_mask = (1 << left_bits) - 1, (1 << right_bits) - 1
    while True:
        left, right = index >> right_bits, index & right_mask
        for i in range(0, 12, 2):
            right ^= mix(left ^ keys[i]) & right_mask
            left ^= mix(right ^ keys[i + 1]) & left_mask
        index = left << right_bits | right
        if index < size:
            return index
