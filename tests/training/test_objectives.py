"""Objectives against their formulas in float64, written out sample by sample."""

import copy
import inspect
import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, mean_velocity, velocity, with_signals, with_small_images
from torch import Tensor, nn

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.program.inputs import InputSource, example_inputs
from edgegen.quantize.calibration import calibration_batches
from edgegen.registry import load, names
from edgegen.support.rng import generator
from edgegen.training.batch import Batch, FreshInputs
from edgegen.training.distances import PIXELS
from edgegen.training.networks import TrainedNetwork
from edgegen.training.objective import Need, Objective
from edgegen.training.pairs import flipped, pair
from edgegen.types import Signature


@pytest.mark.parametrize("condition", ["class", "image", "class of a signal"])
@pytest.mark.parametrize("name", names("objective"))
def test_every_objective_names_its_paper_and_has_a_finite_loss_with_gradient(name: str, condition: str) -> None:
    objective: Objective = load("objective", name)()
    assert "arXiv:" in objective.paper
    assert objective.needs <= set(get_args(Need))
    for method in ("networks", "losses"):
        own, shape = (inspect.signature(getattr(kind, method)) for kind in (type(objective), Objective))
        assert list(own.parameters) == list(shape.parameters)
    assert all(field.description for field in load("objective", name).model_fields.values())
    if "classifier" in objective.needs:
        return  # not a velocity; tested in test_classification.py
    if condition == "image" and getattr(objective, "within_condition", ""):
        return  # refused: no two samples have one condition; tested in tests/pipeline/test_upscale.py
    torch.manual_seed(0)
    takes: dict[str, Any] = {"upscale": 2} if condition == "image" else {"num_classes": 3}
    size = {"sample_size": 16, "signal": True} if condition == "class of a signal" else {"sample_size": 4}
    teacher = EdgeUNet(EdgeUNetConfig(**size, channels=(8, 8), blocks=1, embedding=8, **takes))
    nn.init.normal_(teacher.head.weight, std=0.1)
    frozen = {"slimmed": Field(0.2), "float": Field(0.1), "teacher": teacher.requires_grad_(False)}
    student = Field(0.3)
    student.image_channels, student.num_classes, student.upscale = 1, takes.get("num_classes", 0), takes.get("upscale")
    trained = {"student": TrainedNetwork(student), **objective.networks(student, frozen["teacher"])}
    others = {"image": with_small_images, "class of a signal": with_signals}
    batch = others.get(condition, lambda batch: batch)(make_batch())
    networks = {name: part.network for name, part in trained.items()}
    with torch.no_grad():  # some start where the student has no gradient: a fake that is the teacher, a ratio of one
        for network in networks.values():
            for weight in network.requires_grad_(True).parameters():  # as the loop does
                weight += 0.1 * torch.randn_like(weight)
    own = {name: network for name, network in networks.items() if trained[name].every <= batch.steps}
    batch = replace(batch, due=frozenset(own))
    averages, at_noise = copy.deepcopy(networks), []
    student.register_forward_pre_hook(lambda _, arguments: at_noise.append(bool((arguments[1] == 1).all())))
    losses = objective.losses({**frozen, **networks}, averages, batch, generator(0))
    if getattr(objective, "one_step", False):  # `evaluate` samples it in further steps where it knows other times
        assert at_noise, "the student runs"
        assert all(at_noise) == getattr(objective, "noise_alone", False)
    assert losses.keys() >= own.keys(), "others are figures"
    for trained_name, network in own.items():
        loss = losses[trained_name]
        assert math.isfinite(loss.item())
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        assert any(bool(gradient.any()) for gradient in gradients)
    if name == "self_distillation":
        return  # both of its networks have the same shift here
    changed_batch = _of_other_conditions(batch)
    changed = objective.losses({**frozen, **networks}, copy.deepcopy(networks), changed_batch, generator(0))
    assert not torch.equal(changed["student"], losses["student"]), "the loss depends on the condition"


def _of_other_conditions(batch: Batch) -> Batch:
    assert batch.condition is not None
    real = None if batch.real is None else _of_other_conditions(batch.real)
    condition = batch.condition.roll(1, dims=0)
    return replace(batch, condition=condition, real=real, inputs=(*batch.inputs[:-1], condition))


def test_self_distillation_formula() -> None:
    batch = make_batch()
    noise, labels = f64(batch.inputs[0]), batch.inputs[2].tolist()
    errors = [velocity(0.3, z, 1.0, c) - velocity(0.1, z, 1.0, c) for z, c in zip(noise, labels, strict=True)]
    networks = {"student": Field(0.3), "float": Field(0.1)}
    loss = loss_of("self_distillation", networks, batch)
    assert loss.item() == pytest.approx(np.mean(np.square(errors)), rel=1e-5)
    loss.backward()
    assert networks["float"].weight.grad is None


def test_fresh_inputs_are_new_every_step_and_not_those_of_parity_or_calibration() -> None:
    signature = Signature.of(channels=1, size=4, num_classes=3)
    data = FreshInputs(InputSource(signature, 5), 12)
    first, again, next_ = (
        data.batch(torch.tensor(rows), torch.device("cpu"), step=0, steps=2) for rows in ([0, 7], [0, 7], [1, 2])
    )
    assert len(data) == 12
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.inputs[0], first.images)
    assert first.inputs[1].dtype == torch.int64
    others = [example_inputs(signature, 64, 5), *calibration_batches(InputSource(signature, 5), samples=64, batch=32)]
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
    got = loss_of("flow_matching", {"student": Field(0.3)}, batch)
    assert got.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("step", "beta"), [(0, 1.0), (1, 0.75), (4, 0.0), (9, 0.0)])
def test_annealing_reflow_formula(step: int, beta: float) -> None:
    batch, rng = make_batch(step), generator(7)
    fresh, u = torch.randn(batch.images.shape, generator=rng), torch.rand(6, generator=rng)
    assert load("objective", "annealing_reflow")(anneal_steps=4).beta(step, 10) == pytest.approx(beta)
    rows = []
    for i in range(6):
        e = math.sqrt(1 - beta**2) * f64(batch.noise)[i] + beta * f64(fresh)[i]
        x, t = f64(batch.images)[i], 1e-3 + (1 - 1e-3) * float(u[i])
        rows.append((velocity(0.3, (1 - t) * x + t * e, t, i % 3) - (e - x)) ** 2)
    got = loss_of("annealing_reflow", {"student": Field(0.3)}, batch, anneal_steps=4)
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_fresh_noise_fades_out_over_the_papers_share_of_the_steps_by_default_and_is_absent_at_0() -> None:
    reflow = load("objective", "annealing_reflow")
    assert [reflow().beta(step, 800) for step in (0, 150, 300, 799)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert [reflow(anneal_steps=0).beta(step, 800) for step in (0, 799)] == [0.0, 0.0]


def test_annealed_noise_stays_standard_normal() -> None:
    """sqrt(1 - b^2) e + b e' has variance 1 for every b: seen through a network that returns its input."""
    shape = (4096, 1, 4, 4)
    noise = torch.randn(shape, generator=generator(1))
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
            seen.append(x / t[:, None, None, None])  # images are 0, so x_t = t e_b
            return x

    for step in range(4):
        batch = Batch(step, 10, torch.zeros(shape), None, noise)
        loss_of("annealing_reflow", {"student": Spy()}, batch, seed=2, anneal_steps=4)
    assert all(float(x.double().var()) == pytest.approx(1.0, abs=0.02) for x in seen)


def test_the_joint_flip_keeps_pairs_and_their_small_images_together() -> None:
    batch = Batch(0, 10, make_batch().images, make_batch().images * 3, make_batch().images * 2)
    mirrored = []
    for seed in range(20):
        turned = flipped(batch, generator(seed))
        e, x = pair(turned)
        assert torch.equal(e, 2 * x)
        assert torch.equal(turned.condition, 3 * x)
        mirrored.append(torch.equal(x, batch.images.flip(-1)))
    assert 3 < sum(mirrored) < 17


def test_flow_guided_distillation_formula() -> None:
    batch, rng = make_batch(), generator(7)
    z, u = torch.randn(batch.images.shape, generator=rng), torch.rand(6, generator=rng)
    regression, two_step = [], []
    for i in range(6):
        e, x, n, label = f64(batch.noise)[i], f64(batch.images)[i], f64(z)[i], i % 3
        t = 0.2 + 0.6 * float(u[i])
        regression.append(np.mean((e - mean_velocity(0.3, e, label) - x) ** 2))
        x_t = n - (1 - t) * mean_velocity(0.3, n, label)
        target = x_t - t * velocity(0.2, x_t, t, label)
        two_step.append(np.mean((n - mean_velocity(0.3, n, label) - target) ** 2))
    networks = {"student": Field(0.3), "slimmed": Field(0.2)}
    got = loss_of("flow_guided_distillation", networks, batch, distance="l2", two_step_weight=0.5)
    assert got.item() == pytest.approx(np.mean(regression) + 0.5 * np.mean(two_step), rel=1e-5)


def test_the_two_step_target_has_no_gradient() -> None:
    """The gradient is that of the distance to a fixed target: by difference quotients of the formula in float64."""
    batch, weight, h = make_batch(), 0.3, 1e-5
    rng = generator(7)
    z, u = f64(torch.randn(batch.images.shape, generator=rng)), f64(torch.rand(6, generator=rng))
    e, x, t, labels = f64(batch.noise), f64(batch.images), 0.2 + 0.6 * u, batch.condition.tolist()

    def value(moving: float, target_weight: float) -> float:
        errors = []
        for i, label in enumerate(labels):
            x_t = z[i] - (1 - t[i]) * mean_velocity(target_weight, z[i], label)
            target = x_t - t[i] * velocity(0.2, x_t, t[i], label)
            two_step = np.mean((z[i] - mean_velocity(moving, z[i], label) - target) ** 2)
            errors.append(two_step + np.mean((e[i] - mean_velocity(moving, e[i], label) - x[i]) ** 2))
        return float(np.mean(errors))

    networks = {"student": Field(weight), "slimmed": Field(0.2)}
    loss_of("flow_guided_distillation", networks, batch, distance="l2").backward()
    fixed = (value(weight + h, weight) - value(weight - h, weight)) / (2 * h)
    through = (value(weight + h, weight + h) - value(weight - h, weight - h)) / (2 * h)
    assert float(networks["student"].weight.grad) == pytest.approx(fixed, rel=1e-4)
    assert abs(fixed - through) > 0.05  # so a gradient through the target would be seen
    assert networks["slimmed"].weight.grad is None


@pytest.mark.parametrize(("pairs", "two_step_weight"), [(0.4, 0.0), (0.4, 1.0), (0.9, 1000.0)])
def test_distillation_reaches_a_known_map(pairs: float, two_step_weight: float) -> None:
    """The flow of the slimmed network carries e to 0.4 e; one step does so where u = 0.6 e at t = 1.

    Pairs of that map and the two-step term agree; where the pairs are of another map, a heavy two-step term wins.
    """

    class Straight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.6))

        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
            return self.weight * x / (0.4 + 0.6 * t[:, None, None, None])

    networks = {"student": Field(0.0), "slimmed": Straight()}
    noise = torch.randn(256, 1, 4, 4, generator=generator(0))
    optimizer = torch.optim.Adam(networks["student"].parameters(), lr=0.02)
    for step in range(200):
        batch = Batch(step, 200, pairs * noise, None, noise)
        keys = {"distance": "l2", "two_step_weight": two_step_weight}
        optimizer.zero_grad()
        loss_of("flow_guided_distillation", networks, batch, seed=step, **keys).backward()
        optimizer.step()
    assert networks["student"].weight.item() * 1.5 == pytest.approx(0.6, abs=1e-2)  # u(x, 1, 0) is 1.5 weight x
    assert networks["slimmed"].weight.grad is None


def test_regression_is_the_distance_to_the_pair() -> None:
    batch = make_batch()
    got = loss_of("pair_regression", {"student": Field(0.3)}, batch, distance="l2")
    rows = [
        np.mean((f64(batch.noise)[i] - mean_velocity(0.3, f64(batch.noise)[i], i % 3) - f64(batch.images)[i]) ** 2)
        for i in range(6)
    ]
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_pseudo_huber_is_quadratic_near_zero_and_linear_far_away() -> None:
    d = 16
    c = 0.00054 * math.sqrt(d)
    zero = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    near, far = zero + 1e-6, zero + 100.0
    assert float(PIXELS["pseudo_huber"](near, zero)) == pytest.approx(d * 1e-12 / (2 * c) / math.sqrt(d), rel=1e-3)
    assert float(PIXELS["pseudo_huber"](far, zero)) == pytest.approx(100.0, rel=1e-4)
