"""Portable noise against published test vectors, a second implementation in Python integers, and statistics."""

import math

import numpy as np
import pytest
from noise_vectors import LENGTH, known_normals, known_words, steps
from scipy import stats

from edgegen.noise import normal, philox4x32, whole_numbers


@pytest.mark.parametrize(("counter", "key", "expected"), known_words())
def test_philox_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    assert philox4x32(np.array([counter], dtype=np.uint64), (key[0], key[1]))[0].tolist() == expected


def test_the_vectors_of_the_manual_are_drawn_and_follow_the_definition() -> None:
    for seed, index, values in known_normals():
        assert normal(seed, index, 1, (LENGTH,))[0].tolist() == values.tolist()
        np.testing.assert_array_max_ulp(np.float32(slow_normal(seed, index, LENGTH)), values, maxulp=1)
    assert len(known_words()) == 3
    assert len(known_normals()) == 7


def test_the_steps_in_the_manual_follow_from_each_other() -> None:
    example = steps()
    words = philox4x32(np.array([[0, 0, 1, 0]], dtype=np.uint64), (42, 0))[0]
    assert example.pop("words") == [f"{word:08x}" for word in words]
    u, r, a, values = ([float(number) for number in numbers] for numbers in example.values())
    assert u == [(int(word) + 0.5) / 2**32 for word in words]
    np.testing.assert_array_max_ulp(r, np.sqrt(-2 * np.log(u[0::2])), maxulp=2)
    assert a == [2 * math.pi * number for number in u[1::2]]
    expected = [part for x, y in zip(r, a, strict=True) for part in (x * math.cos(y), x * math.sin(y))]
    np.testing.assert_array_max_ulp(values, expected, maxulp=2)


def slow_normal(seed: int, index: int, size: int) -> list[float]:
    """The definition in the docstring of noise.py, one value at a time in Python's integers."""
    out: list[float] = []
    for block in range(-(-size // 4)):
        c, k = [block, 0, index & 0xFFFFFFFF, index >> 32], [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        u = [(word + 0.5) / 2**32 for word in c]
        for first, second in ((u[0], u[1]), (u[2], u[3])):
            r = math.sqrt(-2 * math.log(first))
            out += [r * math.cos(2 * math.pi * second), r * math.sin(2 * math.pi * second)]
    return out[:size]


@pytest.mark.parametrize(("seed", "index", "size"), [(0, 0, 4), (1, 2, 5), (2**63 - 1, 2**33 + 7, 64)])
def test_normal_follows_its_definition(seed: int, index: int, size: int) -> None:
    drawn = normal(seed, index, 1, (size,))[0]
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, slow_normal(seed, index, size), rtol=1e-6, atol=1e-7)


def test_what_is_beyond_the_specification_is_refused() -> None:
    """Each would give the numbers of another seed or sample."""
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=rf"seed is {seed}; it must be 0 to 2\^64 - 1"):
            normal(seed, 0, 1, (4,))
    for first, count in ((-1, 4), (0, -1), (2**64 - 2, 2)):
        with pytest.raises(ValueError, match=rf"samples {first} to {first + count}; they are numbered"):
            whole_numbers(0, first, count, (4,), low=0, high=1)
    with pytest.raises(ValueError, match="17179869185 values of one sample; at most"):
        normal(0, 0, 0, (2**34 + 1,))


def test_any_range_gives_the_same_samples() -> None:
    whole = normal(3, 0, 10, (2, 3, 3))
    assert np.array_equal(whole[4:7], normal(3, 4, 3, (2, 3, 3)))
    assert not np.array_equal(whole, normal(4, 0, 10, (2, 3, 3)))


def test_values_are_standard_normal_and_uncorrelated() -> None:
    values = normal(7, 0, 2000, (64,)).astype(np.float64)
    assert stats.kstest(values.ravel(), "norm").pvalue > 0.001
    correlation = np.corrcoef(values.T) - np.eye(64)
    assert np.abs(correlation).max() < 5 / math.sqrt(2000)


def test_whole_numbers_are_all_of_the_range_and_equally_likely() -> None:
    values = whole_numbers(5, 0, 500, (40,), low=-3, high=6)
    counts = np.array([(values == number).sum() for number in range(-3, 7)])
    assert counts.sum() == values.size
    assert stats.chisquare(counts).pvalue > 0.001
    assert np.array_equal(values[7:9], whole_numbers(5, 7, 2, (40,), low=-3, high=6))
    assert np.unique(whole_numbers(5, 0, 2, (40,), low=0, high=2**32 - 2)).size == 80
    assert (whole_numbers(5, 0, 2, (3,), low=4, high=4) == 4).all()
