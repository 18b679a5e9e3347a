"""Consistency tuning against its formula in float64, and on Gaussians whose consistency function is known."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, mean_velocity, velocity
from scipy import stats
from torch import Tensor, nn

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.objective import Objective
from edgegen.training.pairs import real_images

C = 0.00054 * 4  # sqrt(16 pixels)
KEYS = {"distance": "l2", "noise_share": 0.3, "stages": 5, "target": "student"}


def draws(batch: Batch, *, noise_share: float, low: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The noise, times and weights of a batch of 6, with scipy's normal distribution."""
    rng = generator(7)
    e = f64(torch.randn(batch.images.shape, generator=rng))
    u = torch.rand(6, generator=rng, dtype=torch.float64).numpy()
    share = torch.rand(6, generator=rng).numpy()
    least = stats.norm(-1.1, 2.0).cdf(math.log(low / (1 - low))) if low else 0.0
    level = stats.norm(-1.1, 2.0).ppf(least + (1 - least) * u)
    t, weight = 1 / (1 + np.exp(-level)), np.ones(6)
    if low:
        t, weight = np.where(share > 0.75, low, t), np.where(share > 0.75, 0.1, weight)
    return e, np.where(share < noise_share, 1.0, t), weight


def image(weight: float, x: np.ndarray, t: float, label: int) -> np.ndarray:
    return x - t * mean_velocity(weight, x, label, t)


def scheduled(t: float, stage: int, q: float = 2.0) -> float:
    level = t / (1 - t) if t < 1 else math.inf
    return t * min(1.0, (1 + 8 / (1 + np.exp(min(level, 700.0)))) / q ** (stage + 1))


@pytest.mark.parametrize("teacher_step", ["none", "euler", "heun"])
@pytest.mark.parametrize("step", [0, 5, 9])
def test_the_formula(teacher_step: str, step: int) -> None:
    batch = make_batch(step)
    real = real_images(batch)
    e, times, _ = draws(real, noise_share=0.3)
    assert 1.0 in times
    rows = []
    for i, t in enumerate(times):
        x, label = f64(real.images)[i], int(real.condition[i])
        length = scheduled(t, 5 * step // 10)
        r = t - length
        x_t = (1 - t) * x + t * e[i]
        if teacher_step == "none":
            x_r = (1 - r) * x + r * e[i]
        else:
            v = velocity(0.25, x_t, t, label)
            x_r = x_t - length * v
            if teacher_step == "heun" and r > 0:
                x_r = x_t - length * (v + velocity(0.25, x_r, r, label)) / 2
        error = image(0.3, x_t, t, label) - image(0.3, x_r, r, label)
        rows.append(np.mean(error**2) / length)
    networks = {"student": Field(0.3), "teacher": Field(0.25)}
    got = loss_of("consistency_tuning", networks, batch, teacher_step=teacher_step, **KEYS)
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-4)


def test_the_formula_above_a_truncation_time() -> None:
    """Below it the target is that of the stage before; samples at it weigh a tenth."""
    batch = make_batch()
    real = real_images(batch)
    e, times, weights = draws(real, noise_share=0.3, low=0.5)
    assert times.min() >= 0.5
    rows, below = [], 0
    for i, t in enumerate(times):
        x, label, length = f64(real.images)[i], int(real.condition[i]), scheduled(t, 2)
        r = t - length
        below += r < 0.5
        x_t, x_r = ((1 - s) * x + s * e[i] for s in (t, r))
        target = image(0.2 if r < 0.5 else 0.3, x_r, r, label)
        rows.append(weights[i] * np.mean((image(0.3, x_t, t, label) - target) ** 2) / length)
    assert 0 < below < 6
    networks = {"student": Field(0.3), "earlier": Field(0.2)}
    got = loss_of("consistency_tuning", networks, batch, truncate_at=0.5, **KEYS)
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-4)


@pytest.mark.parametrize("divisor", ["rule", "step", "target_error"])
def test_the_formula_of_adcms_rule(divisor: str) -> None:
    """The slope of the image along the path is taken from its formula: w x (1 + t) is a polynomial."""
    batch = make_batch()
    real = real_images(batch)
    e, times, _ = draws(real, noise_share=0.3)
    gains, sizes, levels = [], [], []
    for i, t in enumerate(times):
        x, label, h = f64(real.images)[i], int(real.condition[i]), 0.01 * t
        f, before = (image(0.3, (1 - s) * x + s * e[i], s, label) for s in (t, t - h))
        slope = (f - before) / h
        gains.append(np.mean(slope * (f - x)))
        sizes.append(np.mean(slope**2))
        levels.append(min(math.log(t / (1 - t)) if t < 1 else math.inf, math.log(80)))
    rows, errors, steps = [], [], []
    for i, t in enumerate(times):
        near = np.exp(-0.5 * ((np.array(levels) - levels[i]) / 0.5) ** 2)
        length = min(max(0.2 / 1.2 * near @ gains / (near @ sizes), 0.001 * t), t)
        x, label = f64(real.images)[i], int(real.condition[i])
        f, target = (image(0.3, (1 - s) * x + s * e[i], s, label) for s in (t, t - length))
        errors.append(max(np.mean((target - x) ** 2), np.mean((0.002 * (e[i] - x)) ** 2)))
        steps.append(length)
        rows.append(np.mean((f - target) ** 2))
    for i in range(len(times)):
        near = np.exp(-0.5 * ((np.array(levels) - levels[i]) / 0.5) ** 2)
        rows[i] /= steps[i] if divisor == "step" else near @ errors / near.sum()
    keys = {"step_rule": "adcm", "adcm_weight": 0.2, "divisor": divisor, **KEYS}
    got = loss_of("consistency_tuning", {"student": Field(0.3)}, batch, **keys)
    assert got.item() == pytest.approx(np.mean(rows), rel=2e-3)


def test_the_target_has_no_gradient() -> None:
    """The gradient is that of the distance to a fixed target, by difference quotients in float64."""
    batch, h = make_batch(), 1e-5
    real = real_images(batch)
    e, times, _ = draws(real, noise_share=0.3)

    def value(moving: float, still: float) -> float:
        rows = []
        for i, t in enumerate(times):
            x, label, length = f64(real.images)[i], int(real.condition[i]), scheduled(t, 2)
            x_t, x_r = ((1 - s) * x + s * e[i] for s in (t, t - length))
            rows.append(np.mean((image(moving, x_t, t, label) - image(still, x_r, t - length, label)) ** 2) / length)
        return float(np.mean(rows))

    student = Field(0.3)
    loss_of("consistency_tuning", {"student": student}, batch, **KEYS).backward()
    fixed = (value(0.3 + h, 0.3) - value(0.3 - h, 0.3)) / (2 * h)
    through = (value(0.3 + h, 0.3 + h) - value(0.3 - h, 0.3 - h)) / (2 * h)
    assert float(student.weight.grad) == pytest.approx(fixed, rel=1e-3)
    assert abs(fixed - through) > 0.02 * abs(fixed)  # the tolerance above is far below


def test_the_target_can_be_that_of_the_averaged_student() -> None:
    """Of an average that makes nothing but zeros: the loss is the size of the student's images."""

    class Zero(nn.Module):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
            return x / t[:, None, None, None]

    batch = make_batch()
    real = real_images(batch)
    e, times, _ = draws(real, noise_share=0.3)
    rows = []
    for i, t in enumerate(times):
        x_t = (1 - t) * f64(real.images)[i] + t * e[i]
        rows.append(np.mean(image(0.3, x_t, t, int(real.condition[i])) ** 2) / scheduled(t, 2))
    objective = load("objective", "consistency_tuning")(**{**KEYS, "target": "average"})
    losses = objective.losses({"student": Field(0.3)}, {"student": Zero()}, batch, generator(7))
    assert losses["student"].item() == pytest.approx(np.mean(rows), rel=1e-4)


MEAN, SPREAD = 0.4, 0.5  # of the Gaussian data


class Gaussian(nn.Module):
    """The velocity v = (x - f) / t whose f is the consistency function of data N(mean, spread^2), with both learned.

    f(x_t, t) = m + s (x_t - (1 - t) m) / sqrt((1 - t)^2 s^2 + t^2): quantiles stay on the paths of the flow.
    """

    def __init__(self, mean: float, spread: float) -> None:
        super().__init__()
        self.mean, self.spread = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(spread))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        t = t[:, None, None, None]
        size = ((1 - t).square() * self.spread.square() + t.square()).sqrt()
        end = self.mean + self.spread * (x - (1 - t) * self.mean) / size
        return (x - end) / t.clamp(min=1e-6)


class GaussianFlow(nn.Module):
    """The velocity E[e - x | x_t] of data N(MEAN, SPREAD^2)."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        t = t[:, None, None, None]
        size = (1 - t).square() * SPREAD**2 + t.square()
        return (t - (1 - t) * SPREAD**2) / size * (x - (1 - t) * MEAN) - MEAN


def trained(student: nn.Module, *, steps: int, rate: float = 0.02, **keys: Any) -> dict[str, Tensor]:
    """The losses and figures of the last step."""
    objective: Objective = load("objective", "consistency_tuning")(distance="l2", target="student", **keys)
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    networks = {"student": student, "teacher": GaussianFlow(), "earlier": Gaussian(MEAN, SPREAD)}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        images = MEAN + SPREAD * torch.randn(512, 1, 2, 2, generator=generator(1, step))
        losses = objective.losses(networks, {}, Batch(step, steps, images), generator(0, step))
        optimizer.zero_grad()
        losses["student"].backward()
        optimizer.step()
    return dict(losses)


@pytest.mark.parametrize(
    ("keys", "tolerance"),
    [
        ({"teacher_step": "heun", "stages": 4}, 0.02),
        ({"teacher_step": "euler", "stages": 7}, 0.05),
        ({"stages": 7}, 0.05),
        ({"step_rule": "adcm"}, 0.12),
        ({"truncate_at": 0.3, "stages": 7}, 0.05),
    ],
)
def test_a_student_of_gaussian_data_reaches_their_consistency_function(keys: dict[str, Any], tolerance: float) -> None:
    student = Gaussian(0.0, 1.2)
    trained(student, steps=300, **keys)
    assert student.mean.item() == pytest.approx(MEAN, abs=tolerance)
    assert abs(student.spread.item()) == pytest.approx(SPREAD, abs=tolerance)


def test_where_student_and_teacher_agree_the_gradient_is_zero() -> None:
    """Short steps of the exact flow: both points land on one image."""
    batch = replace(make_batch(9), real=None, images=MEAN + SPREAD * torch.randn(6, 1, 4, 4), condition=None)
    gradients = []
    for mean in (MEAN, MEAN + 0.2):
        student = Gaussian(mean, SPREAD)
        networks = {"student": student, "teacher": GaussianFlow()}
        keys = {"teacher_step": "heun", "stages": 1, "q": 200.0, "distance": "l2", "target": "student"}
        loss_of("consistency_tuning", networks, batch, **keys).backward()
        gradients.append(abs(float(student.mean.grad)))
    assert gradients[0] < 1e-3 * gradients[1]


def test_adcms_rule_without_a_signal_is_told() -> None:
    objective = load("objective", "consistency_tuning")(step_rule="adcm")
    figures = trained(Gaussian(MEAN, SPREAD), steps=2, step_rule="adcm", adcm_weight=1e-9)
    means = {name: float(value.detach()) for name, value in figures.items()}
    (fault,) = objective.warnings(means)
    assert fault.startswith("ADCM's rule gives the shortest steps everywhere: r / t is 0.999")
    assert not objective.warnings({"r_over_t": 0.95})
    assert not load("objective", "consistency_tuning")().warnings(means)


def test_the_share_of_pure_noise_is_kept() -> None:
    objective = load("objective", "consistency_tuning")(noise_share=0.25)
    t, _ = objective._times(20_000, generator(0))
    assert float((t == 1).float().mean()) == pytest.approx(0.25, abs=0.01)


class Dropping(nn.Module):
    """A velocity of dropout alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return self.weight * nn.functional.dropout(torch.ones_like(x), 0.5, self.training) / t[:, None, None, None]


def test_both_passes_have_one_dropout_mask() -> None:
    """f(x_t, t) = x_t - mask: with one mask the loss is that of x_t and x_r alone."""
    batch = make_batch()
    real = real_images(batch)
    e, times, _ = draws(real, noise_share=0.3)
    rows = []
    for i, t in enumerate(times):
        length = scheduled(t, 2)
        rows.append(length * np.mean((e[i] - f64(real.images)[i]) ** 2))
    got = loss_of("consistency_tuning", {"student": Dropping()}, batch, **KEYS)
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-3)
