"""The search on made-up devices, whose time for every shape is known: what it measures, and what it chooses."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from edgegen.recipe import Architecture
from edgegen.search.complexity import Facts, Work, work
from edgegen.search.latency_model import predicted_ms
from edgegen.search.selection import BAND, Search, Time, pareto
from edgegen.search.space import shapes

TEACHER, FACTS = Architecture(channels=(64, 128, 128), blocks=2, attention=(1,)), Facts(3, 32, 0)
WORKS = {shape: work(shape, FACTS) for shape in shapes(TEACHER)}
Device = Callable[[Work], float]


def in_blocks(counted: Work) -> float:
    """Milliseconds on a machine that computes 16 channels together, as onnxruntime with AVX-512 does."""
    return 0.003 * counted.layers + counted.filled_macs / 9e7 + counted.activations / 1e6


def by_eights(counted: Work) -> float:
    """On one that does not, and is slow at attention."""
    return 0.02 + counted.macs / 6e7 + counted.attention_macs / 2e7 + counted.weights / 4e6


def searched(times: dict[Architecture, float], budgets: list[float], *, at_once: int = 2, most: int = 60) -> Search:
    search = Search(WORKS)
    while len(search.times) < most and (proposed := search.proposals(budgets, at_once)):
        assert not set(proposed) & set(search.times), "nothing is measured twice"
        assert len(set(proposed)) == len(proposed) <= at_once
        search.times |= {shape: Time(times[shape], 1.003 * times[shape]) for shape in proposed}
    assert not search.proposals(budgets, at_once), "it ends by itself"
    return search


@pytest.mark.parametrize("device", [in_blocks, by_eights])
@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_three_budgets_are_used_up_after_few_measurements(device: Device, at_once: int, spread: float) -> None:
    """Held against the best of all shapes, which only the made-up device knows."""
    rng = random.Random(3)
    times = {shape: device(counted) * math.exp(rng.gauss(0, spread)) for shape, counted in WORKS.items()}
    budgets = [1.0, 2.4, 6.0]
    search = searched(times, budgets, at_once=at_once)
    assert len(search.times) <= 30
    for budget in budgets:
        chosen = search.choice(budget)
        assert chosen is not None
        fitting = [shape for shape in WORKS if 1.003 * times[shape] <= budget]
        best = max(fitting, key=search.capacity)
        assert times[chosen] <= budget
        assert times[chosen] >= (1 - BAND) * budget or search.capacity(chosen) >= 0.95 * search.capacity(best)
        assert search.capacity(chosen) >= 0.7 * search.capacity(best)


def test_a_budget_below_the_fastest_shape_ends_without_a_choice() -> None:
    times = {shape: by_eights(counted) for shape, counted in WORKS.items()}
    search = searched(times, [0.5 * min(times.values())])
    assert search.choice(0.5 * min(times.values())) is None
    assert len(search.times) <= 6
    assert min(search.times.values(), key=lambda time: time.p50_ms).p50_ms == min(times.values())


def test_a_budget_beyond_the_teacher_chooses_the_teacher() -> None:
    times = {shape: by_eights(counted) for shape, counted in WORKS.items()}
    search = searched(times, [2 * max(times.values())])
    assert search.choice(2 * max(times.values())) == TEACHER == search.largest()


def test_a_shape_that_failed_is_not_proposed_again() -> None:
    search = Search(WORKS)
    first = search.proposals([1.0], 2)
    search.failed |= set(first)
    second = search.proposals([1.0], 2)
    assert second
    assert not set(first) & set(second)


def test_a_shape_whose_interval_reaches_beyond_the_budget_does_not_fit() -> None:
    small, large = sorted(WORKS, key=lambda shape: WORKS[shape].macs)[:2]
    search = Search(WORKS, times={small: Time(0.9, 0.95), large: Time(0.99, 1.01)})
    assert search.choice(1.0) == small
    assert search.choice(1.02) == large


def test_guesses_of_a_sum_of_shares_are_right_and_of_two_measurements_at_least_in_order() -> None:
    rng = random.Random(0)
    known = rng.sample(list(WORKS), 12)
    asked = [counted for shape, counted in WORKS.items() if shape not in known]
    guessed = predicted_ms({WORKS[one]: in_blocks(WORKS[one]) for one in known}, asked, near_ms=3.0)
    np.testing.assert_allclose(guessed, [in_blocks(one) for one in asked], rtol=1e-6)
    two = sorted(WORKS.values(), key=lambda counted: counted.macs)[:: len(WORKS) - 1]
    crude = predicted_ms({one: in_blocks(one) for one in two}, asked, near_ms=3.0)
    assert (crude > 0).all()
    assert np.corrcoef(crude, [in_blocks(one) for one in asked])[0, 1] > 0.9


def test_the_pareto_set_holds_what_no_other_shape_beats() -> None:
    """By hand: b costs more than a and is smaller in all; c is the largest; d lacks a's memory and nothing else."""
    a, b, c, d = (
        Architecture(channels=(width,), blocks=blocks) for width, blocks in ((16, 2), (16, 1), (32, 2), (24, 2))
    )
    works = {shape: work(shape, FACTS) for shape in (a, b, c, d)}
    times = {a: Time(1.0, 1.0, 100), b: Time(1.1, 1.1, 100), c: Time(3.0, 3.0, 300), d: Time(2.0, 2.0, 100)}
    assert pareto(works, times) == {a, c, d}
    assert pareto(works, {**times, d: Time(3.5, 3.5, 300)}) == {a, c}
    unknown = {shape: Time(time.p50_ms, time.high_ms) for shape, time in times.items()}
    assert pareto(works, unknown) == {a, c, d}
