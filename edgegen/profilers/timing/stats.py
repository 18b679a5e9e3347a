"""Statistics of latency samples: percentiles, and a bootstrap interval of the median that respects the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

RESAMPLES = 1000
SKETCH = 25  # quantiles that stand for one long block inside the bootstrap: bounds its cost, not the percentiles'
ROUNDING = 0.05  # runs: above the float32 error of a sum of weights, below the half run that decides


@dataclass(frozen=True)
class Summary:
    """The percentiles of all runs of one job; `p50_ci95_ms` is (low, high)."""

    runs: int
    p50_ms: float
    p50_ci95_ms: tuple[float, float]
    p90_ms: float

    def within(self, share: float) -> bool:
        """Whether the interval stays within `share` of the median on both sides."""
        low, high = self.p50_ci95_ms
        return max(high - self.p50_ms, self.p50_ms - low) <= share * self.p50_ms


def summarize(blocks: Sequence[Samples], *, seed: int = 0) -> Summary:
    """Percentiles over all runs of all blocks (each a 1-d array of milliseconds, none empty); no run is left out."""
    runs = np.concatenate(list(blocks))
    p50, p90 = np.percentile(runs, [50, 90])
    return Summary(len(runs), float(p50), median_interval(blocks, seed=seed), float(p90))


def percentiles(blocks: Sequence[Samples]) -> tuple[float, ...]:
    """The 101 percentiles from 0 to 100 over all runs: what a plot of their distribution is drawn from."""
    return tuple(map(float, np.percentile(np.concatenate(list(blocks)), np.arange(101))))


def median_interval(
    blocks: Sequence[Samples], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the pooled median, resampling whole blocks.

    Runs of one block share the state of the machine, so single runs are not independent: drawing them one by one
    would call a median certain to 0.1 % after one quiet block. The cluster bootstrap (Davison and Hinkley, "Bootstrap
    Methods and their Application", 1997, section 3.8) draws blocks; with blocks of one run it is the plain bootstrap.
    """
    return _interval(_medians(blocks, resamples=resamples, seed=seed), level)


def ratio_interval(
    before: Sequence[Samples],
    after: Sequence[Samples],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of median(after) / median(before), the blocks of both drawn on their own."""
    drawn = [_medians(blocks, resamples=resamples, seed=seed + index) for index, blocks in enumerate((before, after))]
    return _interval(drawn[1] / drawn[0], level)


def _interval(values: Samples, level: float) -> tuple[float, float]:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _medians(blocks: Sequence[Samples], *, resamples: int, seed: int) -> Samples:
    """The pooled medians of resampled blocks."""
    sketches = [_sketch(block) for block in blocks]
    values = np.concatenate(sketches)
    owner = np.repeat(np.arange(len(blocks)), [len(sketch) for sketch in sketches])
    weight = np.repeat(
        [len(block) / len(sketch) for block, sketch in zip(blocks, sketches, strict=True)], np.bincount(owner)
    )
    order = np.argsort(values, kind="stable")
    values, owner, weight = values[order], owner[order], weight[order]

    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(len(blocks), np.full(len(blocks), 1.0 / len(blocks)), size=resamples)
    below = times_drawn.astype(np.float32)[:, owner]
    below *= weight.astype(np.float32)
    np.cumsum(below, axis=1, out=below)
    half = below[:, -1:] / 2.0
    # The middle value, or the mean of the two middle values where exactly half of the weight lies below.
    low = values[np.argmax(below > half - ROUNDING, axis=1)]
    high = values[np.argmax(below > half + ROUNDING, axis=1)]
    medians: Samples = (low + high) / 2.0
    return medians


def _sketch(block: Samples) -> Samples:
    """The block itself, or SKETCH evenly spaced quantiles of a longer one."""
    if len(block) <= SKETCH:
        return block
    return np.quantile(block, (np.arange(SKETCH) + 0.5) / SKETCH)
