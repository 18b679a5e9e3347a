"""Consistency mid-training: its formula, and the map of a known path."""

import math

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, mean_velocity
from torch import nn

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch


@pytest.mark.parametrize("noise_share", [0.0, 0.5, 1.0])
def test_the_formula(noise_share: float) -> None:
    batch, rng = make_batch(), generator(7)
    index, share = torch.randint(3, (6,), generator=rng), torch.rand(6, generator=rng)
    rows, used = [], set()
    for i in range(6):
        knot = 0 if float(share[i]) < noise_share else int(index[i])
        used.add(knot)
        x_t, t = f64(batch.knots)[i, knot], float(batch.knot_times[knot])
        rows.append(np.mean((x_t - t * mean_velocity(0.3, x_t, i % 3, t) - f64(batch.images)[i]) ** 2))
    assert (used == {0}) == (noise_share == 1.0)
    got = loss_of("cmt", {"student": Field(0.3)}, batch, distance="l2", noise_share=noise_share)
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_of_paths_with_one_state_it_is_the_regression_of_pairs() -> None:
    whole = make_batch()
    batch = Batch(5, 10, whole.images, whole.condition, whole.noise, whole.noise[:, None], torch.ones(1))
    networks = {"student": Field(0.3)}
    assert torch.equal(loss_of("cmt", networks, batch), loss_of("pair_regression", networks, batch))


def test_it_reaches_the_map_of_a_known_path_and_its_figures_tell_of_wrong_paths() -> None:
    """Paths x_t = (0.4 + 0.6 t) x_1: of the field w x / (0.4 + 0.6 t), w = 0.6 lands on 0.4 x_1 from all of them."""

    class Straight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
            return self.weight * x / (0.4 + 0.6 * t[:, None, None, None])

    times = torch.tensor([1.0, 0.75, 0.5, 0.25])
    noise = torch.randn(64, 1, 4, 4, generator=generator(0))
    knots = torch.stack([(0.4 + 0.6 * t) * noise for t in times], dim=1)
    student, objective = Straight(), load("objective", "cmt")(distance="l2")
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    for step in range(150):
        batch = Batch(step, 150, 0.4 * noise, None, noise, knots, times)
        losses = objective.losses({"student": student}, {}, batch, generator(step))
        optimizer.zero_grad()
        losses["student"].backward()
        optimizer.step()
    assert student.weight.item() == pytest.approx(0.6, abs=1e-3)
    errors = [float(value) for name, value in losses.items() if name != "student"]
    assert max(error for error in errors if not math.isnan(error)) < 1e-2
    wrong = Batch(0, 150, 0.4 * noise.roll(1, 0), None, noise, knots, times)  # the ends of other paths
    figures = objective.losses({"student": student}, {}, wrong, generator(0))
    errors = [float(value) for name, value in figures.items() if name != "student"]
    assert min(error for error in errors if not math.isnan(error)) > 0.2
