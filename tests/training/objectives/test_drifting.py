"""Drifting against its formula, and where its force points."""

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, mean_velocity
from torch import Tensor, nn

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def expected(y: np.ndarray, x: np.ndarray, labels: list[int]) -> float:
    """The mean square of V: sample by sample, over the targets of each one's class."""
    n, width = y.shape
    targets = np.concatenate([y, x])
    classes = labels + labels
    allowed = [[j for j in range(2 * n) if classes[j] == labels[i]] for i in range(n)]
    mean = np.mean([np.linalg.norm(y[i] - targets[j]) for i in range(n) for j in allowed[i]])
    total = np.zeros_like(y)
    for temperature in (0.02, 0.05, 0.2):
        logits = np.full((n, 2 * n), -np.inf)
        for i in range(n):
            for j in allowed[i]:
                if j != i:
                    logits[i, j] = -np.linalg.norm(y[i] - targets[j]) / mean / temperature
        rows = np.array([softmax(row) for row in logits])
        columns = np.zeros_like(rows)
        for j in range(2 * n):
            if np.isfinite(logits[:, j]).any():
                columns[:, j] = softmax(logits[:, j])
        a = np.sqrt(rows * columns)
        force = np.zeros_like(y)
        for i in range(n):
            off, near = a[i, :n].sum(), a[i, n:].sum()
            for j in range(n):
                force[i] += off * a[i, n + j] * (x[j] - y[i]) - near * a[i, j] * (y[j] - y[i])
        force /= mean / np.sqrt(width)
        total += force / np.sqrt(np.mean(force**2))
    return float(np.mean(total**2))


def test_the_loss_is_the_mean_square_of_the_drift() -> None:
    batch = make_batch()
    z = f64(torch.randn(batch.images.shape, generator=generator(7)))
    labels = batch.real.condition.tolist()
    y = np.stack([e - mean_velocity(0.3, e, c) for e, c in zip(z, labels, strict=True)]).reshape(6, -1)
    networks = {"student": Field(0.3)}
    loss = loss_of("drifting", networks, batch)
    assert loss.item() == pytest.approx(expected(y, f64(batch.real.images).reshape(6, -1), labels), rel=1e-3)


class Shift(nn.Module):
    """G(z) = z + shift of the class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        shift = self.shift[torch.zeros(len(x), dtype=torch.long) if labels is None else labels]
        return -shift[:, None, None, None].expand_as(x)


@pytest.mark.parametrize("conditional", [True, False])
def test_images_drift_to_those_of_their_own_class(conditional: bool) -> None:
    student = Shift(2)
    centres = torch.tensor([2.0, -1.0]) if conditional else torch.tensor([2.0, 2.0])
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    for step in range(120):
        labels = torch.arange(64) % 2
        noise = torch.randn(64, 1, 1, 2, generator=generator(9, step))
        batch = Batch(step, 120, noise + centres[labels][:, None, None, None], labels if conditional else None)
        optimizer.zero_grad()
        loss_of("drifting", {"student": student}, batch, seed=step).backward()
        optimizer.step()
    made = student.shift.tolist() if conditional else student.shift.tolist()[:1]
    assert made == pytest.approx(centres.tolist()[: len(made)], abs=0.25)


def test_a_teachers_features_move_the_student_alone() -> None:
    torch.manual_seed(0)
    teacher = EdgeUNet(EdgeUNetConfig(sample_size=4, channels=(8, 8), blocks=1, num_classes=3, embedding=8))
    networks = {"student": Field(0.3), "teacher": teacher.requires_grad_(False)}
    loss_of("drifting", networks, make_batch(), features="teacher").backward()
    assert networks["student"].weight.grad is not None
    assert float(networks["student"].weight.grad.abs()) > 0
    assert load("objective", "drifting")(features="teacher").needs == {"real_images", "teacher", "teacher_features"}
