"""The bootstrap of the median against scipy's, and against what is known of blocks."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from edgegen.profilers.timing.stats import SKETCH, Summary, median_interval, ratio_interval, summarize


def singles(values: np.ndarray) -> list[np.ndarray]:
    return list(values[:, None])


@pytest.mark.parametrize("count", [24, 25, 200])
def test_blocks_of_one_run_give_the_plain_bootstrap(count: int) -> None:
    values = np.random.default_rng(count).gamma(9.0, 1.0, count)
    ours = median_interval(singles(values), resamples=10_000)
    theirs = scipy_stats.bootstrap(
        (values,), np.median, method="percentile", n_resamples=10_000, rng=1
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.15 * (theirs.high - theirs.low))


def test_the_distribution_is_the_exact_one_where_it_can_be_enumerated() -> None:
    # 27 equally likely draws of three values: the median is the low, middle, high one 7, 13, 7 times.
    values = np.array([1.0, 2.0, 4.0])
    assert median_interval(singles(values), level=1 - 2 * 6 / 27, resamples=20_000) == (1.0, 4.0)
    assert median_interval(singles(values), level=1 - 2 * 8 / 27, resamples=20_000) == (2.0, 2.0)


def test_runs_that_agree_within_a_block_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    speeds = rng.normal(10.0, 1.0, size=(20, 1))
    blocks = list(speeds + rng.normal(0.0, 0.01, size=(20, 50)))
    low, high = median_interval(blocks)
    naive_low, naive_high = median_interval(singles(np.concatenate(blocks)[:1000]))
    assert high - low > 3 * (naive_high - naive_low)


def test_the_sketch_of_long_blocks_changes_little() -> None:
    rng = np.random.default_rng(5)
    blocks = [rng.gamma(9.0, scale, 400) for scale in rng.normal(1.0, 0.1, 30)]
    assert all(len(block) > SKETCH for block in blocks)
    medians = []
    for _ in range(2000):  # the same bootstrap without a sketch
        drawn = rng.integers(0, len(blocks), len(blocks))
        medians.append(np.median(np.concatenate([blocks[i] for i in drawn])))
    low, high = np.quantile(medians, [0.025, 0.975])
    assert median_interval(blocks) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_the_interval_of_a_ratio_is_scipys_over_the_same_blocks() -> None:
    """scipy draws indices of blocks of each side; the statistic takes the median of all runs in the blocks drawn."""
    rng = np.random.default_rng(11)
    before = rng.normal(10.0, 0.5, (30, 1)) * rng.normal(1.0, 0.03, (30, 8))
    after = rng.normal(11.0, 0.8, (40, 1)) * rng.normal(1.0, 0.03, (40, 8))

    def statistic(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.median(after[second.astype(int)]) / np.median(before[first.astype(int)]))

    reference = scipy_stats.bootstrap(
        (np.arange(30), np.arange(40)), statistic, method="percentile", vectorized=False, n_resamples=4000, rng=1
    ).confidence_interval
    ours = ratio_interval(list(before), list(after), resamples=4000)
    assert ours == pytest.approx((reference.low, reference.high), abs=0.1 * (reference.high - reference.low))
    assert ours[0] < 1.1 < ours[1]


def test_a_ratio_is_resampled_as_often_as_asked() -> None:
    """A single draw has no spread."""
    rng = np.random.default_rng(2)
    before, after = (list(rng.gamma(9.0, 1.0, (20, 4))) for _ in range(2))
    low, high = ratio_interval(before, after, resamples=1)
    assert low == high
    low, high = ratio_interval(before, after, resamples=100)
    assert low < high


def test_blocks_count_by_their_length() -> None:
    blocks = [np.full(1, 1.0)] * 9 + [np.full(1000, 2.0)] * 9
    low, high = median_interval(blocks)
    assert high == 2.0
    assert summarize(blocks).p50_ms == 2.0
    assert low == 2.0, "nine runs of 1 ms are nothing beside nine thousand of 2 ms"


def test_the_interval_is_the_same_from_the_same_seed() -> None:
    blocks = singles(np.random.default_rng(0).gamma(9.0, 1.0, 57))
    assert median_interval(blocks, seed=4) == median_interval(blocks, seed=4)


def test_percentiles_are_numpys_over_every_run() -> None:
    rng = np.random.default_rng(1)
    blocks = [rng.gamma(9.0, 1.0, count) for count in (7, 40, 3)]
    summary = summarize(blocks)
    assert summary.runs == 50
    assert [summary.p50_ms, summary.p90_ms] == pytest.approx(np.percentile(np.concatenate(blocks), [50, 90]))


def test_within_looks_at_both_sides() -> None:
    assert Summary(30, 1.0, (0.98, 1.02), 1.1).within(0.0201)
    assert not Summary(30, 1.0, (0.97, 1.00), 1.1).within(0.0201)
    assert not Summary(30, 1.0, (1.00, 1.03), 1.1).within(0.0201)
