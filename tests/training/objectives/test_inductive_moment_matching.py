"""Inductive moment matching against its formula, and on data whose flow map is known."""

import math

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch
from torch import Tensor, nn

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch

METHOD = "inductive_moment_matching"


def jumped(x: np.ndarray, t: float, s: float, label: int, weight: float) -> np.ndarray:
    """f(x_t, t, s) of the tests' field."""
    u = weight * x * (1 + t - 0.5 * (t - s)) + 0.1 * label
    return x - (t - s) * u


def expected(batch: Batch, group: int, weight: float, moving: float, halvings: int = 6, power: int = 1) -> float:
    """The loss in float64, sample by sample; `moving` is the weight of what has a gradient."""
    real, rng = batch.real, generator(7)
    order = np.argsort(real.condition.numpy(), kind="stable")
    e = f64(torch.randn(real.images.shape, generator=rng))
    u = f64(torch.rand(len(order), 2, generator=rng))
    x, labels = f64(real.images)[order], real.condition.numpy()[order]
    total = 0.0
    for first in range(0, len(x), group):
        members = range(first, min(first + group, len(x)))
        t = 0.006 + 0.994 * u[first, 0]
        s = t * u[first, 1]
        ratio = max(t / (1 - t) - 160 / 2**halvings, 0.0)
        r = max(ratio / (1 + ratio), s)
        y = [jumped((1 - t) * x[i] + t * e[i], t, s, labels[i], moving) for i in members]
        y_r = [jumped((1 - r) * x[i] + r * e[i], r, s, labels[i], weight) for i in members]

        def kernel(a: np.ndarray, b: np.ndarray, t: float = t, s: float = s) -> float:
            return math.exp(-max(float(np.linalg.norm(a - b)), 1e-8) / (a.size * (t - s)))

        snr = 2 * math.log((1 - t) / t)
        slope = 2 / (t * (1 - t))  # of -log SNR
        w = 0.5 / (1 + math.exp(snr - 5.0)) * slope * (1 - t) ** power / ((1 - t) ** 2 + t**2)
        pairs = [(i, j) for i in range(len(members)) for j in range(len(members))]
        mmd = sum(kernel(y[i], y[j]) + kernel(y_r[i], y_r[j]) - 2 * kernel(y[i], y_r[j]) for i, j in pairs)
        total += w * mmd / len(members)
    return total / len(x)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_the_loss_and_its_gradient_are_those_of_the_formula(group: int) -> None:
    """Six samples: with M = 4 the last group has two."""
    batch, h = make_batch(), 1e-5
    networks = {"student": Field(0.3)}
    loss = loss_of(METHOD, networks, batch, group=group, halvings=6)
    assert loss.item() == pytest.approx(expected(batch, group, 0.3, 0.3), rel=1e-4)
    loss.backward()
    slope = (expected(batch, group, 0.3, 0.3 + h) - expected(batch, group, 0.3, 0.3 - h)) / (2 * h)
    assert float(networks["student"].weight.grad) == pytest.approx(slope, rel=1e-3)


def test_the_second_power_of_the_papers_weight_makes_late_times_count_less() -> None:
    loss = loss_of(METHOD, {"student": Field(0.3)}, make_batch(), group=2, halvings=6, weight_power=2)
    assert loss.item() == pytest.approx(expected(make_batch(), 2, 0.3, 0.3, power=2), rel=1e-4)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    first, second = (load("objective", METHOD)(weight_power=power).weight(t) for power in (1, 2))
    torch.testing.assert_close(second, (1 - t) * first)
    # Eq. 13 with b = 5, worked out: l = log 81 at t = 0.1, sigma(5 - l) = 1 / (1 + 81 / e^5), -dl/dt = 2 / 0.09.
    assert float(first[0]) == pytest.approx(0.5 / (1 + 81 / math.exp(5)) * 2 / 0.09 * 0.9 / 0.82)
    assert float(first[2]) == pytest.approx(1.0), "at pure noise: sigma is 1, and (1 - t) (-dl/dt) / 2 is 1 / t"


def test_alone_in_its_group_a_sample_has_a_consistency_loss() -> None:
    """M = 1: 2 w (1 - exp(-|f(x_t) - sg f(x_r)| / (D (t - s)))), a growing function of that distance alone."""
    y, target = torch.randn(2, 5, 1, 4, 4, generator=generator(0), dtype=torch.float64)
    from edgegen.training.objectives.inductive_moment_matching import _discrepancy

    scale = torch.linspace(1, 16, 5, dtype=torch.float64)
    alone = _discrepancy(y, target, torch.eye(5, dtype=torch.bool), scale)
    distance = (y - target).flatten(1).norm(dim=1)
    torch.testing.assert_close(alone, 2 * (1 - torch.exp(-distance / scale)))


class ToAPoint(nn.Module):
    """The flow map of data at one point m, which is learned: u(x, t, r) = (x - m) / t."""

    second_time = True

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, r: Tensor | None = None) -> Tensor:
        return (x - self.level) / t[:, None, None, None]


def test_on_data_at_one_point_the_map_to_that_point_is_found_and_has_no_loss() -> None:
    x = torch.full((64, 1, 2, 2), 0.7)
    student = ToAPoint(-0.5)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.03)
    for step in range(150):
        optimizer.zero_grad()
        loss_of(METHOD, {"student": student}, Batch(step, 150, x), seed=step, halvings=6).backward()
        optimizer.step()
    assert student.level.item() == pytest.approx(0.7, abs=0.03)
    exact = loss_of(METHOD, {"student": ToAPoint(0.7)}, Batch(0, 1, x), halvings=6)
    assert exact.item() == pytest.approx(0.0, abs=1e-5)


def test_times_are_in_order_and_a_group_shares_them() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Spy(Field):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, r: Tensor | None = None) -> Tensor:
            assert r is not None
            seen.append((t, r))
            return super().forward(x, t, labels, r)

    images = torch.zeros(64, 1, 2, 2)
    loss_of(METHOD, {"student": Spy(0.3)}, Batch(0, 1, images), halvings=8)
    (t, s), (r, s_again) = seen
    assert torch.equal(s, s_again)
    assert bool(((s <= r) & (r <= t)).all())
    assert bool((r < t).any())
    assert len(t.unique()) == 16
    assert torch.equal(t.view(16, 4)[:, :1].expand(16, 4), t.view(16, 4))
    assert load("objective", METHOD)().needs == {"real_images", "second_time"}
