"""Random times: their densities, by integrals of the formulas and by the distribution of scipy."""

import numpy as np
import pytest
from scipy import stats

from edgegen.flow.time_sampling import log_normal, u_shaped
from edgegen.support.rng import generator

COUNT = 40_000


def test_u_shaped_times_have_the_density_of_the_paper() -> None:
    t = u_shaped(COUNT, generator(0)).double().numpy()
    assert t.min() >= 0
    assert t.max() <= 1

    def below(limit: float) -> float:
        grid = np.linspace(0, 1, 100_001)
        density = np.exp(4 * grid) + np.exp(4 * (1 - grid))
        return float(density[grid <= limit].sum() / density.sum())

    for limit in (0.1, 0.3, 0.5, 0.9):
        assert (t <= limit).mean() == pytest.approx(below(limit), abs=0.01)


@pytest.mark.parametrize("low", [0.0, 0.5])
def test_noise_levels_are_log_normal_above_the_cut(low: float) -> None:
    t = log_normal(COUNT, generator(0), mean=-1.1, sd=2.0, low=low).double().numpy()
    levels = np.log(t / (1 - t))
    cut = -np.inf if low == 0 else 0.0
    assert t.min() >= low
    assert t.max() < 1
    expected = stats.truncnorm((cut + 1.1) / 2, np.inf, loc=-1.1, scale=2.0)
    assert stats.kstest(levels, expected.cdf).statistic < 0.01
