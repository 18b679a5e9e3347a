"""The search on made-up devices with a known latency for every shape: what it measures, and what it chooses."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from edgegen.recipe import Architecture
from edgegen.search.complexity import Complexity, DataSpec, complexity_of
from edgegen.search.latency_model import predicted_ms
from edgegen.search.selection import BAND, Search, ShapeLatency, pareto
from edgegen.search.space import shapes

TEACHER, DATA = Architecture(channels=(64, 128, 128), blocks=2, attention=(1,)), DataSpec(3, 32, 0)
COMPLEXITIES = {shape: complexity_of(shape, DATA) for shape in shapes(TEACHER)}
Device = Callable[[Complexity], float]


def in_blocks(complexity: Complexity) -> float:
    """Milliseconds on a machine that computes 16 channels together, as onnxruntime does with AVX-512."""
    return 0.003 * complexity.layers + complexity.padded_macs / 9e7 + complexity.activations / 1e6


def unblocked(complexity: Complexity) -> float:
    """Milliseconds on one that does not, and that is slow at attention."""
    return 0.02 + complexity.macs / 6e7 + complexity.attention_macs / 2e7 + complexity.weights / 4e6


def searched(times: dict[Architecture, float], budgets: list[float], *, at_once: int = 2, most: int = 60) -> Search:
    search = Search(COMPLEXITIES)
    while len(search.latencies) < most and (proposed := search.proposals(budgets, at_once)):
        assert not set(proposed) & set(search.latencies), "nothing is measured twice"
        assert len(set(proposed)) == len(proposed) <= at_once
        search.latencies |= {shape: ShapeLatency(times[shape], 1.003 * times[shape]) for shape in proposed}
    assert not search.proposals(budgets, at_once), "the search ends by itself"
    return search


@pytest.mark.parametrize("device", [in_blocks, unblocked])
@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_three_budgets_are_used_up_after_few_measurements(device: Device, at_once: int, spread: float) -> None:
    """Compared with the best of all shapes, which is known on a made-up device only."""
    rng = random.Random(3)
    times = {shape: device(complexity) * math.exp(rng.gauss(0, spread)) for shape, complexity in COMPLEXITIES.items()}
    budgets = [1.0, 2.4, 6.0]
    search = searched(times, budgets, at_once=at_once)
    assert len(search.latencies) <= 30
    for budget in budgets:
        chosen = search.choice(budget)
        assert chosen is not None
        fitting = [shape for shape in COMPLEXITIES if 1.003 * times[shape] <= budget]
        best = max(fitting, key=search.capacity)
        assert times[chosen] <= budget
        assert times[chosen] >= (1 - BAND) * budget or search.capacity(chosen) >= 0.95 * search.capacity(best)
        assert search.capacity(chosen) >= 0.7 * search.capacity(best)


def test_a_budget_below_the_fastest_shape_ends_without_a_choice() -> None:
    times = {shape: unblocked(complexity) for shape, complexity in COMPLEXITIES.items()}
    search = searched(times, [0.5 * min(times.values())])
    assert search.choice(0.5 * min(times.values())) is None
    assert len(search.latencies) <= 6
    assert min(search.latencies.values(), key=lambda time: time.p50_ms).p50_ms == min(times.values())


def test_a_budget_beyond_the_teacher_chooses_the_teacher() -> None:
    times = {shape: unblocked(complexity) for shape, complexity in COMPLEXITIES.items()}
    search = searched(times, [2 * max(times.values())])
    assert search.choice(2 * max(times.values())) == TEACHER == search.largest()


def test_a_shape_that_failed_is_not_proposed_again() -> None:
    search = Search(COMPLEXITIES)
    first = search.proposals([1.0], 2)
    search.failed |= set(first)
    second = search.proposals([1.0], 2)
    assert second
    assert not set(first) & set(second)


def test_a_shape_whose_interval_reaches_beyond_the_budget_does_not_fit() -> None:
    small, large = sorted(COMPLEXITIES, key=lambda shape: COMPLEXITIES[shape].macs)[:2]
    search = Search(COMPLEXITIES, latencies={small: ShapeLatency(0.9, 0.95), large: ShapeLatency(0.99, 1.01)})
    assert search.choice(1.0) == small
    assert search.choice(1.02) == large


def test_predictions_of_a_linear_device_are_exact_and_from_two_measurements_at_least_correlated() -> None:
    rng = random.Random(0)
    known = rng.sample(list(COMPLEXITIES), 12)
    others = [complexity for shape, complexity in COMPLEXITIES.items() if shape not in known]
    predicted = predicted_ms(
        {COMPLEXITIES[shape]: in_blocks(COMPLEXITIES[shape]) for shape in known}, others, near_ms=3.0
    )
    np.testing.assert_allclose(predicted, [in_blocks(other) for other in others], rtol=1e-6)
    two = sorted(COMPLEXITIES.values(), key=lambda complexity: complexity.macs)[:: len(COMPLEXITIES) - 1]
    crude = predicted_ms({complexity: in_blocks(complexity) for complexity in two}, others, near_ms=3.0)
    assert (crude > 0).all()
    assert np.corrcoef(crude, [in_blocks(other) for other in others])[0, 1] > 0.9


def test_the_pareto_set_holds_the_shapes_that_no_other_dominates() -> None:
    """By hand: a dominates b; c is the largest; d takes more time than a and has more parameters."""
    a, b, c, d = (
        Architecture(channels=(width,), blocks=blocks) for width, blocks in ((16, 2), (16, 1), (32, 2), (24, 2))
    )
    complexities = {shape: complexity_of(shape, DATA) for shape in (a, b, c, d)}
    times = {
        a: ShapeLatency(1.0, 1.0, 100),
        b: ShapeLatency(1.1, 1.1, 100),
        c: ShapeLatency(3.0, 3.0, 300),
        d: ShapeLatency(2.0, 2.0, 100),
    }
    assert pareto(complexities, times) == {a, c, d}
    assert pareto(complexities, {**times, d: ShapeLatency(3.5, 3.5, 300)}) == {a, c}
    unknown = {shape: ShapeLatency(time.p50_ms, time.high_ms) for shape, time in times.items()}
    assert pareto(complexities, unknown) == {a, c, d}
