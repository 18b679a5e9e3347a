"""The ranges of rounded activations: all values of calibration, or fewer, so that the steps are finer.

The observers are torchao's; to its minimum and maximum and its search for the least squared error, this adds two more
ways to cut a histogram.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

SMALLEST_SCALE = {8: 2**-12, 16: 2**-20}  # of an activation, by its bits: what XNNPACK's quantizer sets for 8
KEPT = 0.9999  # of the values, by "percentile"
LEVELS = 256
CANDIDATES, NARROWEST = 100, 32  # of "entropy": how many ranges are tried, down to this part of the whole
EMPTY = 1e-9  # share of a bin that nothing falls into any more, for the logarithm


def observer(ranges: str, bits: int = 8) -> Any:
    """The constructor of the observer for one of the recipe's `quantize.ranges`, of activations of 8 or 16 bits."""
    import torch
    from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver

    class Percentile(HistogramObserver):  # type: ignore[misc]
        def _non_linear_param_search(self) -> "tuple[torch.Tensor, torch.Tensor]":
            return _tensors(percentile(*_histogram(self)))

    class Entropy(HistogramObserver):  # type: ignore[misc]
        def _non_linear_param_search(self) -> "tuple[torch.Tensor, torch.Tensor]":
            return _tensors(least_divergence(*_histogram(self)))

    def _tensors(limits: tuple[float, float]) -> "tuple[torch.Tensor, torch.Tensor]":
        return torch.tensor(limits[0]), torch.tensor(limits[1])

    # XNNPACK's own choice, the least squared error of a tensor, cuts the tails of the noise: with 1024 samples it left
    # single pixels wrong by a quarter of the image's range, minimum and maximum by less than a tenth.
    kinds = {"minmax": MinMaxObserver, "mse": HistogramObserver, "percentile": Percentile, "entropy": Entropy}
    return kinds[ranges].with_args(eps=SMALLEST_SCALE[bits])


def _histogram(observer_state: Any) -> tuple[NDArray[np.float64], float, float]:
    return (
        observer_state.histogram.numpy().astype(np.float64),
        float(observer_state.min_val),
        float(observer_state.max_val),
    )


def percentile(counts: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """The range of the bins that hold the middle KEPT of the values; `counts` are of equal bins, `low` to `high`."""
    edges = np.linspace(low, high, len(counts) + 1)
    shares = np.cumsum(counts) / counts.sum()
    first, last = np.searchsorted(shares, [(1 - KEPT) / 2, (1 + KEPT) / 2])
    return float(edges[first]), float(edges[min(int(last), len(counts) - 1) + 1])


def least_divergence(counts: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """The range [max(low, -t), min(high, t)] of the least Kullback-Leibler divergence, among CANDIDATES of t.

    Compared are the histogram with what lies outside added to its end bins, and the same in LEVELS levels, each spread
    over those of its bins that are not empty (S. Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    edges = np.linspace(low, high, len(counts) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    furthest = max(abs(low), abs(high))
    best, limits = np.inf, (low, high)
    for t in np.geomspace(furthest, furthest / NARROWEST, CANDIDATES):
        start, end = max(low, -t), min(high, t)
        inside = (middles >= start) & (middles <= end)
        if not counts[inside].any():
            continue
        divergence = _divergence(counts, middles, inside, start, end)
        if divergence < best:
            best, limits = divergence, (start, end)
    return limits


def _divergence(
    counts: NDArray[np.float64], middles: NDArray[np.float64], inside: NDArray[np.bool_], start: float, end: float
) -> float:
    inner_counts = counts[inside]
    clipped = inner_counts.copy()
    clipped[0] += counts[middles < start].sum()
    clipped[-1] += counts[middles > end].sum()
    level = np.clip(((middles[inside] - start) / (end - start) * LEVELS).astype(int), 0, LEVELS - 1)
    filled = clipped > 0
    sums = np.bincount(level, weights=inner_counts, minlength=LEVELS)
    bins = np.bincount(level[filled], minlength=LEVELS)
    spread = np.where(filled, sums[level] / np.maximum(bins[level], 1), 0.0)
    p, q = clipped / clipped.sum(), spread / spread.sum()
    q = np.maximum(q, EMPTY)
    return float(np.sum(p[filled] * np.log(p[filled] / q[filled])))
