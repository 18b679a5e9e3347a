"""Implicit maximum likelihood: the nearest candidate alone is moved, near ones are rejected, no image is left out."""

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, mean_velocity
from torch import Tensor, nn

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch

CANDIDATES = 3


def candidates(batch: Batch, images: Tensor, labels: Tensor, weight: float) -> list[list[tuple[float, np.ndarray]]]:
    """For each image its candidates: the mean squared distance and the generated image, sample by sample."""
    noise = f64(torch.randn(len(images), CANDIDATES, *images.shape[1:], generator=generator(7)))
    rows = []
    for x, c, own in zip(f64(images), labels.tolist(), noise, strict=True):
        made = [z - mean_velocity(weight, z, c) for z in own]
        rows.append([(float(np.mean((y - x) ** 2)), y) for y in made])
    return rows


@pytest.mark.parametrize("images", ["teacher", "real"])
def test_the_loss_is_the_distance_to_the_nearest_of_the_candidates(images: str) -> None:
    batch = make_batch()
    assert batch.real is not None
    part = batch if images == "teacher" else batch.real
    rows = candidates(batch, part.images, part.condition, 0.3)
    networks = {"student": Field(0.3)}
    loss = loss_of("imle", networks, batch, images=images, candidates=CANDIDATES)
    assert loss.item() == pytest.approx(np.mean([min(row)[0] for row in rows]), rel=1e-5)
    loss.backward()
    choice, h = [int(np.argmin([distance for distance, _ in row])) for row in rows], 1e-5
    high, low = (
        np.mean([row[j][0] for row, j in zip(candidates(batch, part.images, part.condition, w), choice, strict=True)])
        for w in (0.3 + h, 0.3 - h)
    )
    assert float(networks["student"].weight.grad) == pytest.approx((high - low) / (2 * h), rel=1e-4)


def test_what_is_near_to_any_image_is_rejected_and_an_image_without_a_candidate_has_no_loss() -> None:
    batch = make_batch()
    rows = candidates(batch, batch.images, batch.condition, 0.3)
    images = f64(batch.images)

    def expected(radius: float) -> tuple[float, int]:
        losses, rejected = [], 0
        for row in rows:
            kept = [d for d, y in row if min(np.sqrt(np.mean((y - x) ** 2)) for x in images) >= radius]
            losses.append(min(kept, default=0.0))
            rejected += CANDIDATES - len(kept)
        return float(np.mean(losses)), rejected

    radii = sorted(min(np.sqrt(np.mean((y - x) ** 2)) for x in images) for row in rows for _, y in row)
    radius = float(radii[len(radii) // 2] + 1e-4)  # half of the candidates go
    loss, rejected = expected(radius)
    assert 0 < rejected < len(rows) * CANDIDATES
    assert loss != pytest.approx(expected(0.0)[0], rel=1e-3)
    keys = {"candidates": CANDIDATES, "rejection_radius": radius}
    assert loss_of("imle", {"student": Field(0.3)}, batch, **keys).item() == pytest.approx(loss, rel=1e-5)
    everything = loss_of("imle", {"student": Field(0.3)}, batch, candidates=CANDIDATES, rejection_radius=100.0)
    assert everything.item() == 0.0


class TwoImages(nn.Module):
    """Makes one of two images, both learned: which one, the sign of the noise says."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Parameter(torch.tensor([0.1, -0.1]))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        first = (x.mean(dim=(1, 2, 3), keepdim=True) > 0).float()
        return x - (first * self.images[0] + (1 - first) * self.images[1]).expand_as(x)


def trained(student: nn.Module, **keys: float) -> dict[str, float]:
    """The last figures after 100 steps on images that are -1 and 1, each half of the time."""
    x = torch.tensor([-1.0, 1.0]).repeat(32)[:, None, None, None].expand(-1, 1, 4, 4)
    objective = load("objective", "imle")(images="real", candidates=8, **keys)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    for step in range(100):
        values = objective.losses({"student": student}, {}, Batch(step, 100, x), generator(step))
        optimizer.zero_grad()
        values["student"].backward()
        optimizer.step()
    return {name: float(value.detach()) for name, value in values.items()}


def test_both_modes_are_covered_where_a_regression_on_random_noise_would_give_their_mean() -> None:
    student = TwoImages()
    figures = trained(student)
    assert sorted(student.images.tolist()) == pytest.approx([-1.0, 1.0], abs=0.02)
    assert figures["nearest"] < 0.2
    assert load("objective", "imle")().warnings(figures) == []


def test_a_collapsed_student_and_a_radius_that_rejects_all_are_said_in_words() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.tensor(0.0))

        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
            return x - self.level

    objective = load("objective", "imle")(images="real")
    assert "candidates are alike" in objective.warnings(trained(Constant()))[0]
    assert "most candidates are rejected" in objective.warnings(trained(TwoImages(), rejection_radius=5.0))[0]
