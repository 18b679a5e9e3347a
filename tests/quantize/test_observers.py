"""The ranges of activations: against NumPy's quantiles, SciPy's divergence, and what each is for."""

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import entropy

from edgegen.quantize.observers import EMPTY, KEPT, LEVELS, NARROWEST, least_divergence, observer, percentile
from edgegen.recipe import Quantize, Ranges


def histogram(values: NDArray[np.float64], bins: int = 2048) -> tuple[NDArray[np.float64], float, float]:
    counts, edges = np.histogram(values, bins=bins)
    return counts.astype(np.float64), float(edges[0]), float(edges[-1])


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(0).standard_normal(1_000_000)
    low, high = percentile(*histogram(values))
    expected = np.quantile(values, [(1 - KEPT) / 2, (1 + KEPT) / 2], method="inverted_cdf")
    step = np.ptp(values) / 2048
    assert np.abs(np.array([low, high]) - expected).max() <= step


def test_the_divergence_is_least_where_scipy_finds_it() -> None:
    """The same comparison, written from the paper's steps once more, with SciPy's divergence."""
    values = np.random.default_rng(1).laplace(size=200_000)
    counts, low, high = histogram(values, bins=1024)
    edges = np.linspace(low, high, 1025)
    middles = (edges[1:] + edges[:-1]) / 2

    def divergence(t: float) -> float:
        inside = np.abs(middles) <= t
        p = counts[inside].copy()
        p[0] += counts[middles < -t].sum()
        p[-1] += counts[middles > t].sum()
        q = np.zeros_like(p)
        start, end = max(low, -t), min(high, t)
        levels = np.minimum(((middles[inside] - start) / (end - start) * LEVELS).astype(int), LEVELS - 1)
        for level in range(LEVELS):
            bins = (levels == level) & (p > 0)
            if bins.any():
                q[bins] = counts[inside][levels == level].sum() / bins.sum()
        return float(entropy(p / p.sum(), np.maximum(q / q.sum(), EMPTY)))

    start, end = least_divergence(counts, low, high)
    t = max(-start, end)
    furthest = max(-low, high)
    assert t < 0.9 * furthest, "a Laplacian's tail is cut"
    tried = np.geomspace(furthest, furthest / NARROWEST, 100)
    assert divergence(t) <= min(divergence(other) for other in tried) + 1e-6


def test_an_even_spread_is_kept_whole_and_one_number_is_a_range() -> None:
    assert least_divergence(np.full(2048, 10.0), -1.0, 3.0) == (-1.0, 3.0)
    counts = np.zeros(2048)
    counts[1024] = 5.0
    low, high = least_divergence(counts, -1.0, 1.0)
    assert low < high
    assert np.isfinite([*percentile(counts, -1.0, 1.0)]).all()


@pytest.mark.parametrize("kind", get_args(Ranges))
def test_every_way_gives_a_range_that_a_rare_large_value_does_not_blow_up_but_by_minmax(kind: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(200_000)
    values[7] = 100.0
    made = observer(kind)(dtype=torch.int8, qscheme=torch.per_tensor_affine, quant_min=-128, quant_max=127)
    for part in values.chunk(4):
        made(part)
    scale, zero = made.calculate_qparams()
    reach = float(scale * (127 - zero))
    assert reach >= 2.0
    assert (reach > 99.0) == (kind == "minmax")


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValidationError, match="Input should be 'minmax', 'percentile', 'mse' or 'entropy'"):
        Quantize(ranges="mean")
