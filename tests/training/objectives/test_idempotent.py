"""The idempotent network against its paper's algorithm, its gradients, and a data set whose answer is known."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, mean_velocity
from torch import Tensor, nn

from edgegen.errors import RecipeError
from edgegen.flow.path import one_step
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.pipeline.graph import check, select
from edgegen.recipe import parse
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch

WEIGHTS = {"idempotence_weight": 0.7, "tightness_weight": 0.3, "clamp": 1.2}


def step(weight: float, x: np.ndarray, label: int) -> np.ndarray:
    return x - mean_velocity(weight, x, label)


def expected(weight: float, batch: Batch) -> tuple[float, float]:
    """The loss, and its slope in the weight, sample by sample: frozen weights are numbers, moved ones `weight + h`."""
    z, x = f64(torch.randn(batch.images.shape, generator=generator(7))), f64(batch.real.images)
    labels = batch.real.condition.tolist()

    def loss(h: float) -> float:
        values = []
        for sample, noise, label in zip(x, z, labels, strict=True):
            frozen, moved = step(weight, noise, label), step(weight + h, noise, label)
            reconstruction = np.abs(step(weight + h, sample, label) - sample).mean()
            idempotence = np.abs(step(weight, moved, label) - moved).mean()
            drift = np.abs(step(weight + h, frozen, label) - frozen).mean()
            bound = WEIGHTS["clamp"] * np.abs(step(weight, sample, label) - sample).mean()
            tightness = -math.tanh(drift / bound) * bound
            values.append(
                reconstruction + WEIGHTS["idempotence_weight"] * idempotence + WEIGHTS["tightness_weight"] * tightness
            )
        return float(np.mean(values))

    return loss(0.0), (loss(1e-6) - loss(-1e-6)) / 2e-6


def test_loss_and_gradient_are_the_formulas() -> None:
    batch, student = make_batch(), Field(0.3)
    value, slope = expected(student.weight.item(), batch)
    loss = loss_of("idempotent", {"student": student}, batch, **WEIGHTS)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-5)
    assert student.weight.grad.item() == pytest.approx(slope, rel=1e-3)


def network() -> EdgeUNet:
    net = EdgeUNet(EdgeUNetConfig(4, channels=(8, 8), blocks=1, num_classes=3, embedding=8))
    randomize_zero_layers(net, 0)
    return net


@pytest.mark.parametrize("of_idempotence", [True, False], ids=["idempotence", "tightness"])
def test_each_term_moves_one_of_the_two_instances(of_idempotence: bool) -> None:
    """As the paper's algorithm, which copies the network: f'(f(z)) against f(z), and f(f'(z)) against f'(z)."""
    student, batch = network(), make_batch()
    weights = {"idempotence_weight": float(of_idempotence), "tightness_weight": float(not of_idempotence)}
    loss_of("idempotent", {"student": student}, batch, **weights, clamp=1e6).backward()
    own = [weight.grad.clone() for weight in student.parameters()]

    student.zero_grad()
    frozen, labels, x = copy.deepcopy(student).requires_grad_(False), batch.real.condition, batch.real.images
    z = torch.randn(x.shape, generator=generator(7))
    f_x, f_z = one_step(student, x, labels), one_step(student, z, labels)
    if of_idempotence:
        term = (one_step(frozen, f_z, labels) - f_z).abs().mean()
    else:
        term = -(one_step(student, f_z.detach(), labels) - f_z.detach()).abs().mean()
    ((f_x - x).abs().mean() + term).backward()
    for gradient, weight in zip(own, student.parameters(), strict=True):
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-6)


class Affine(nn.Module):
    """One step from any x (batch, 1, 1, 2) is A x."""

    def __init__(self, matrix: list[list[float]]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(matrix))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return x - x @ self.a.T


def on_a_line(count: int, seed: int) -> Batch:
    """Images (2 s, s), s standard normal."""
    s = torch.randn(count, 1, 1, 1, generator=generator(3, seed))
    return Batch(seed, 400, s * torch.tensor([2.0, 1.0]))


def test_it_comes_to_a_projection_onto_the_line_of_the_data() -> None:
    """The one linear map that keeps the data, is idempotent and moves all else: rank 1, A (2, 1) = (2, 1)."""
    student = Affine([[0.9, 0.3], [-0.2, 0.6]])
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for seed in range(400):
        optimizer.zero_grad()
        loss_of("idempotent", {"student": student}, on_a_line(64, seed), seed=seed).backward()
        optimizer.step()
        scheduler.step()
    a = student.a.detach()
    torch.testing.assert_close(a @ torch.tensor([2.0, 1.0]), torch.tensor([2.0, 1.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(a @ a, a, atol=0.02, rtol=0)
    assert torch.linalg.eigvals(a).abs().min() < 0.02, "noise lands on the line"


@pytest.mark.parametrize("second", [0.0, 1.0], ids=["projection", "identity"])
def test_a_projection_onto_the_data_has_no_gradient_and_neither_has_the_identity(second: float) -> None:
    student = Affine([[1.0, 0.0], [0.0, second]])
    images = on_a_line(16, 0).images * torch.tensor([1.0, 0.0])
    values = load("objective", "idempotent")().losses({"student": student}, {}, Batch(0, 1, images), generator(7))
    values["student"].backward()
    assert not student.a.grad.any()
    assert values["idempotence"].item() == values["reconstruction"].item() == 0.0
    assert (values["moved"].item() == 0.0) == bool(second), "what tells one from the other"


def recipe(stage: str) -> Any:
    tables: dict[str, Any] = {
        "name": "x",
        "slim": {"network": {"channels": [8, 16]}, "method": "flow_matching"},
        "distill": {"method": "flow_matching"},
    }
    tables[stage] = {**tables[stage], "method": "idempotent"}
    return parse(tables, where="x.toml")


def test_it_learns_from_the_data_alone_after_another_method() -> None:
    after = recipe("distill")
    check(after, select(after))
    assert not {"teacher", "pairs"} & {stage.name for stage in select(after)}
    first = recipe("slim")
    with pytest.raises(RecipeError, match=r"slim.method = 'idempotent' needs trained_student, which the stage slim"):
        check(first, select(first))


def test_a_student_that_has_become_the_identity_is_warned_of() -> None:
    warnings = load("objective", "idempotent")().warnings
    assert warnings({"moved": 0.9}) == warnings({}) == []
    assert "it moves noisy images by 0.02 of their noise; raise tightness_weight" in warnings({"moved": 0.02})[0]
