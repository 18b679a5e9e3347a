"""Portable seeded noise: the same (seed, index) gives the same numbers in Python, TypeScript, Kotlin and Swift.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi:10.1145/2063384.2063405) turns
a counter and a key into four 32-bit words; Box-Muller in float64 turns two words into two normals, rounded to float32.

    key     = (seed low 32 bits, seed high 32 bits)
    counter = (block, 0, index low 32 bits, index high 32 bits);  block b gives values 4b .. 4b+3 of sample `index`
    u = (word + 0.5) / 2^32;  r = sqrt(-2 ln u0), a = 2 pi u1;  values r cos a, r sin a; then the same from u2, u3

docs/noise.md specifies it in full, with vectors to check another implementation by; edgegen/apps/templates has three.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))  # Philox4x32, table 2 of the paper
WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))  # golden ratio and sqrt(3) - 1, same source
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
LARGEST = (1 << 64) - 1  # seed, and number of samples of a seed
LARGEST_SIZE = 1 << 34  # of one sample: 2^32 blocks of four
CHUNK = 1 << 20  # Philox blocks at once: limits the memory to about 100 MB


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds of Philox4x32: counter (n, 4) of 32-bit words -> (n, 4) random 32-bit words (held in uint64)."""
    c0, c1, c2, c3 = (counter[:, i].copy() for i in range(4))
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & LOW, (p0 >> SHIFT) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return np.stack([c0, c1, c2, c3], axis=1)


def normal(seed: int, first: int, count: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """Standard normal noise for the samples first .. first+count-1: (count, *shape) float32.

    Sample i depends on (seed, i, shape) only, so any range can be made anywhere, in any order.

    Args:
        seed: 0 to 2^64 - 1; the same seed gives the same noise in every language.
        first: index of the first sample.
        count: number of samples; first + count is at most 2^64 - 1.
        shape: of one sample, such as (channels, height, width).

    Returns:
        Samples first .. first + count - 1, shape (count, *shape).

    Raises:
        ValueError: a number beyond these limits.
    """
    size = math.prod(shape)
    _check(seed, first, count, size)
    out = np.empty((count, size), dtype=np.float32)
    for rows, words in _words_of(seed, first, count, size):
        out[rows] = _normal_rows(words)[:, :size]
    return out.reshape(count, *shape)


def whole_numbers(seed: int, first: int, count: int, shape: Sequence[int], *, low: int, high: int) -> NDArray[np.int64]:
    """Each of low .. high as likely, for the samples first .. first+count-1: (count, *shape) int64.

    By the words that `normal` takes: low + floor(word (high - low + 1) / 2^32), of ranges below 2^32.
    """
    size = math.prod(shape)
    _check(seed, first, count, size)
    out = np.empty((count, size), dtype=np.int64)
    for rows, words in _words_of(seed, first, count, size):
        out[rows] = low + (words[:, :size] * np.uint64(high - low + 1) >> SHIFT).astype(np.int64)
    return out.reshape(count, *shape)


def _check(seed: int, first: int, count: int, size: int) -> None:
    """Raises ValueError for what would give the numbers of another seed or sample."""
    if not 0 <= seed <= LARGEST:
        raise ValueError(f"seed is {seed}; it must be 0 to 2^64 - 1")
    if min(first, count) < 0 or first + count > LARGEST:
        raise ValueError(f"samples {first} to {first + count}; they are numbered from 0 to 2^64 - 2")
    if size > LARGEST_SIZE:
        raise ValueError(f"{size} values of one sample; at most 2^34 can be drawn")


def _words_of(seed: int, first: int, count: int, size: int) -> Iterator[tuple[slice, NDArray[np.uint64]]]:
    """At least `size` random words for each sample, some samples (rows) at a time."""
    blocks = -(-size // 4)
    step = max(1, CHUNK // max(blocks, 1))
    for start in range(0, count, step):
        index = np.arange(first + start, first + min(start + step, count), dtype=np.uint64)
        yield slice(start, start + len(index)), _words(seed, index, blocks)


def _words(seed: int, index: NDArray[np.uint64], blocks: int) -> NDArray[np.uint64]:
    counter = np.zeros((len(index), blocks, 4), dtype=np.uint64)
    counter[:, :, 0] = np.arange(blocks, dtype=np.uint64)
    counter[:, :, 2] = (index & LOW)[:, None]
    counter[:, :, 3] = (index >> SHIFT)[:, None]
    words = philox4x32(counter.reshape(-1, 4), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return words.reshape(len(index), 4 * blocks)


def _normal_rows(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    u = (words.astype(np.float64) + 0.5) / 2.0**32
    radius = np.sqrt(-2.0 * np.log(u[:, 0::2]))
    angle = 2.0 * np.pi * u[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    return pairs.reshape(words.shape)
