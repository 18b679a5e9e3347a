"""Objectives against their formulas in float64, written out sample by sample."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen.program.inputs import example_inputs
from edgegen.quantize.calibration import calibration_batches
from edgegen.registry import load, names
from edgegen.support.rng import generator
from edgegen.training.batch import Batch, FreshInputs
from edgegen.training.distances import DISTANCES
from edgegen.training.objectives.annealing_reflow import AnnealingReflow
from edgegen.training.objectives.flow_guided_distillation import FlowGuidedDistillation
from edgegen.training.objectives.flow_matching import FlowMatching
from edgegen.training.objectives.pair_regression import PairRegression
from edgegen.training.objectives.self_distillation import SelfDistillation
from edgegen.types import Signature


class Field(nn.Module):
    """A velocity with a parameter, that depends on x, t and the class."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        shift = 0.0 if labels is None else 0.1 * labels[:, None, None, None]
        return self.weight * x * (1 + t[:, None, None, None]) + shift


def make_batch(progress: float = 0.5) -> Batch:
    g = generator(3)
    shape = (6, 1, 4, 4)
    images, labels, noise = torch.randn(shape, generator=g), torch.arange(6) % 3, torch.randn(shape, generator=g)
    return Batch(0, progress, images, labels, noise, inputs=(noise, torch.ones(6), labels))


def f64(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def velocity(weight: float, x: np.ndarray, t: float, label: int) -> np.ndarray:
    return weight * x * (1 + t) + 0.1 * label


def test_every_objective_names_its_paper_and_has_a_finite_loss_with_gradient() -> None:
    arguments = {"annealing_reflow": (0.4,), "classification": None}
    for name in names("objective"):
        if arguments.get(name, ()) is None:
            continue  # not a velocity; tested with the extractor
        objective = load("objective", name)(*arguments.get(name, ()))
        nets = {"student": Field(0.3), "reflowed": Field(0.2), "float": Field(0.1)}
        loss = objective.losses(nets, make_batch(), generator(0))["student"]
        loss.backward()
        assert "arXiv:" in objective.paper
        assert math.isfinite(loss.item())
        assert float(nets["student"].weight.grad) != 0
        assert nets["reflowed"].weight.grad is None
        assert nets["float"].weight.grad is None


def test_self_distillation_formula() -> None:
    batch = make_batch()
    noise, labels = f64(batch.inputs[0]), batch.inputs[2].tolist()
    errors = [velocity(0.3, z, 1.0, c) - velocity(0.1, z, 1.0, c) for z, c in zip(noise, labels, strict=True)]
    nets = {"student": Field(0.3), "float": Field(0.1)}
    loss = SelfDistillation().losses(nets, batch, generator(0))["student"]
    assert loss.item() == pytest.approx(np.mean(np.square(errors)), rel=1e-5)


def test_fresh_inputs_are_new_every_step_and_not_those_of_parity_or_calibration() -> None:
    signature = Signature.of(channels=1, size=4, num_classes=3)
    data = FreshInputs(signature, 12, seed=5)
    first, again, next_ = (
        data.batch(torch.tensor(rows), torch.device("cpu"), step=0, steps=2) for rows in ([0, 7], [0, 7], [1, 2])
    )
    assert len(data) == 12
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.inputs[0], first.images)
    assert first.inputs[1].dtype == torch.int64
    others = [example_inputs(signature, 64, 5), *calibration_batches(signature, samples=64, seed=5, batch=32)]
    known = {row.tobytes() for values in others for row in values["sample"]}
    assert not any(row.numpy().tobytes() in known for batch in (first, next_) for row in batch.images)
    assert not (first.images[:, None] == next_.images[None]).flatten(2).all(-1).any()


def test_flow_matching_formula() -> None:
    batch, rng = make_batch(), generator(7)
    e, t = torch.randn(batch.images.shape, generator=rng), torch.rand(6, generator=rng)
    expected = np.mean(
        [
            (velocity(0.3, (1 - s) * x + s * n, s, i % 3) - (n - x)) ** 2
            for i, (x, n, s) in enumerate(zip(f64(batch.images), f64(e), f64(t), strict=True))
        ]
    )
    got = FlowMatching().losses({"student": Field(0.3)}, batch, generator(7))["student"]
    assert got.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 1.0), (0.1, 0.75), (0.4, 0.0), (0.9, 0.0)])
def test_annealing_reflow_formula(progress: float, beta: float) -> None:
    batch, rng = make_batch(progress), generator(7)
    fresh, u = torch.randn(batch.images.shape, generator=rng), torch.rand(6, generator=rng)
    assert AnnealingReflow(0.4).beta(progress) == pytest.approx(beta)
    rows = []
    for i in range(6):
        e = math.sqrt(1 - beta**2) * f64(batch.noise)[i] + beta * f64(fresh)[i]
        x, t = f64(batch.images)[i], 1e-3 + (1 - 1e-3) * float(u[i])
        rows.append((velocity(0.3, (1 - t) * x + t * e, t, i % 3) - (e - x)) ** 2)
    got = AnnealingReflow(0.4).losses({"student": Field(0.3)}, batch, generator(7))["student"]
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_annealed_noise_stays_standard_normal() -> None:
    """sqrt(1 - b^2) e + b e' has variance 1 for every b: seen through a net that returns its input."""
    shape = (4096, 1, 4, 4)
    noise = torch.randn(shape, generator=generator(1))
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
            seen.append(x / t[:, None, None, None])  # images are 0, so x_t = t e_b
            return x

    for progress in (0.0, 0.1, 0.2, 0.3):
        batch = Batch(0, progress, torch.zeros(shape), None, noise)
        AnnealingReflow(0.4).losses({"student": Spy()}, batch, generator(2))
    assert all(float(x.double().var()) == pytest.approx(1.0, abs=0.02) for x in seen)


def test_the_joint_flip_keeps_pairs_together() -> None:
    batch = Batch(0, 1.0, make_batch().images, None, make_batch().images * 2)
    mirrored = []
    for seed in range(20):
        from edgegen.training.objectives.annealing_reflow import flipped

        e, x = flipped(batch, generator(seed))
        assert torch.equal(e, 2 * x)
        mirrored.append(torch.equal(x, batch.images.flip(-1)))
    assert 3 < sum(mirrored) < 17


def test_flow_guided_distillation_formula() -> None:
    batch, rng = make_batch(), generator(7)
    z, u = torch.randn(batch.images.shape, generator=rng), torch.rand(6, generator=rng)
    regression, two_step = [], []
    for i in range(6):
        e, x, n, label = f64(batch.noise)[i], f64(batch.images)[i], f64(z)[i], i % 3
        t = 0.2 + 0.6 * float(u[i])
        regression.append(np.mean((e - velocity(0.3, e, 1, label) - x) ** 2))
        x_t = n - (1 - t) * velocity(0.3, n, 1, label)
        target = x_t - t * velocity(0.2, x_t, t, label)
        two_step.append(np.mean((n - velocity(0.3, n, 1, label) - target) ** 2))
    nets = {"student": Field(0.3), "reflowed": Field(0.2)}
    got = FlowGuidedDistillation("l2", 0.5).losses(nets, batch, generator(7))["student"]
    assert got.item() == pytest.approx(np.mean(regression) + 0.5 * np.mean(two_step), rel=1e-5)


def test_the_two_step_target_has_no_gradient() -> None:
    """With the regression term at its minimum the gradient is that of a fixed target: checked by finite differences."""
    batch, weight, h = make_batch(), 0.3, 1e-3

    def grad(w: float) -> float:
        student = Field(w)
        loss = FlowGuidedDistillation("l2").losses({"student": student, "reflowed": Field(0.2)}, batch, generator(7))
        loss["student"].backward()
        return float(student.weight.grad)

    def value(w: float) -> float:
        nets = {"student": Field(w), "reflowed": Field(0.2)}
        return FlowGuidedDistillation("l2").losses(nets, batch, generator(7))["student"].item()

    through = (value(weight + h) - value(weight - h)) / (2 * h)
    assert abs(grad(weight) - through) > 0.05  # a gradient through the target would equal the difference quotient


def test_distillation_reaches_a_known_map() -> None:
    """Pairs of a linear map x = 0.4 e: regression finds u = 0.6 e at t = 1, and the two-step term agrees with it."""
    student, reflowed = Field(0.0), Field(0.0)
    noise = torch.randn(256, 1, 4, 4, generator=generator(0))
    # The straight flow to x = 0.4 e has v(x_t, t) = 0.6 x_t / (0.4 + 0.6 t).

    class Straight(nn.Module):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
            return 0.6 * x / (0.4 + 0.6 * t[:, None, None, None])

    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    for step in range(200):
        batch = Batch(step, 0.0, 0.4 * noise, None, noise)
        loss = FlowGuidedDistillation("l2").losses({"student": student, "reflowed": Straight()}, batch, generator(step))
        optimizer.zero_grad()
        loss["student"].backward()
        optimizer.step()
    assert student.weight.item() * 2 == pytest.approx(0.6, abs=1e-2)  # the field is weight * x * (1 + t)
    assert reflowed.weight.grad is None


def test_regression_is_the_distance_to_the_pair() -> None:
    batch = make_batch()
    got = PairRegression("l2").losses({"student": Field(0.3)}, batch, generator(0))["student"]
    rows = [
        np.mean((f64(batch.noise)[i] - velocity(0.3, f64(batch.noise)[i], 1, i % 3) - f64(batch.images)[i]) ** 2)
        for i in range(6)
    ]
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_pseudo_huber_is_quadratic_near_zero_and_linear_far_away() -> None:
    d = 16
    c = 0.00054 * math.sqrt(d)
    zero = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    near, far = zero + 1e-6, zero + 100.0
    assert float(DISTANCES["pseudo_huber"](near, zero)) == pytest.approx(d * 1e-12 / (2 * c) / math.sqrt(d), rel=1e-3)
    assert float(DISTANCES["pseudo_huber"](far, zero)) == pytest.approx(100.0, rel=1e-4)
