"""Shortcut models: against the formula in float64, times on their grid, the map of a known flow, a fault in words."""

import numpy as np
import pytest
import torch
from gaussian_flow import coefficient, known, trained_scale
from objective_parts import Field, f64, make_batch

from edgegen.registry import load
from edgegen.support.rng import generator


def mean_velocity(weight: float, x: np.ndarray, t: float, r: float, label: int) -> np.ndarray:
    return weight * x * (1 + t - 0.5 * (t - r)) + 0.1 * label


@pytest.mark.parametrize("method", ["shortcut", "split_mean_flow"])
@pytest.mark.parametrize("velocity", ["data", "teacher"])
def test_formula(method: str, velocity: str) -> None:
    """Every second sample is a long jump, the others are the velocity; of the shortest halves r is t."""
    objective = load("objective", method)(velocity=velocity, bootstrap_every=2, target="average", grid=4)
    batch, rng = make_batch(), generator(7)
    e = torch.randn(batch.real.images.shape, generator=rng)
    t, m, r = (f64(time) for time in objective.three_times(6, rng))
    start = torch.rand(6, generator=rng)
    start = f64(start if method == "split_mean_flow" else ((start * 4).floor() + 1) / 4)
    losses = []
    for i, (x, n) in enumerate(zip(f64(batch.real.images), f64(e), strict=True)):
        label = int(batch.real.condition[i])
        a, b = (t[i], r[i]) if i % 2 == 0 else (start[i], start[i])
        x_t = (1 - a) * x + a * n
        if i % 2 == 0:
            shortest = 0.25 if method == "shortcut" else 0.0
            first = mean_velocity(0.2, x_t, a, a if a - m[i] <= shortest else m[i], label)
            x_m = x_t - (a - m[i]) * first
            second = mean_velocity(0.2, x_m, m[i], m[i] if m[i] - b <= shortest else b, label)
            target = ((a - m[i]) * first + (m[i] - b) * second) / (a - b)
        else:
            target = n - x if velocity == "data" else mean_velocity(0.25, x_t, a, a, label)
        losses.append(np.mean((mean_velocity(0.3, x_t, a, b, label) - target) ** 2))
    student = Field(0.3)
    networks, averages = {"student": student, "teacher": Field(0.25)}, {"student": Field(0.2)}
    values = objective.losses(networks, averages, batch, generator(7))
    values["student"].backward()
    assert values["student"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert averages["student"].weight.grad is None
    assert networks["teacher"].weight.grad is None


def test_lengths_are_halves_of_halves_and_jumps_lie_between_0_and_1() -> None:
    t, m, r = load("objective", "shortcut")(grid=8).three_times(3000, generator(0))
    lengths, counts = torch.unique(t - r, return_counts=True)
    assert lengths.tolist() == [0.25, 0.5, 1.0]
    assert bool((counts > 900).all())
    assert torch.equal(m, (t + r) / 2)
    assert torch.equal((t / (t - r)).round(), t / (t - r))
    assert (float(r.min()), float(t.max())) == (0.0, 1.0)
    t, m, r = load("objective", "split_mean_flow")().three_times(3000, generator(0))
    assert bool(((r >= 0) & (r <= m) & (m <= t) & (t <= 1)).all())


@pytest.mark.parametrize("method", ["shortcut", "split_mean_flow"])
def test_it_reaches_the_map_of_a_known_flow(method: str) -> None:
    student, figures = trained_scale(method, 0.4, steps=400, velocity="teacher")
    assert coefficient(student, 1.0, 0.0) == pytest.approx(known(0.4, 1.0, 0.0), abs=0.06)
    figures = {"jump error": 0.1, "velocity error": 0.3}
    assert load("objective", method)().warnings(figures) == []
    (warning,) = load("objective", method)().warnings({"jump error": 0.5, "velocity error": 0.3})
    assert warning.startswith("long jumps do not follow the short ones: ")
