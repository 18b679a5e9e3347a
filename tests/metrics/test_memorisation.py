"""Copies are found, and what is no copy is not taken for one."""

import numpy as np
import pytest
import torch
from damaged_digits import blurred, digits, few, heldout, noisy
from torch import Tensor

from edgegen.metrics import memorisation as module
from edgegen.metrics.memorisation import nearest_distances, nearness
from edgegen.support.pixels import scaled

TRAIN = digits()[0]


@pytest.mark.parametrize("rows", [1, 100, 2048])
def test_distances_equal_the_loops(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    images = noisy(heldout()[:20], 0.3)
    shown = np.rint((images.numpy().astype(np.float64) + 1) * 127.5).clip(0, 255)
    expected = [min(np.sqrt(np.mean((x - y) ** 2)) for y in TRAIN.numpy().astype(np.float64)) / 127.5 for x in shown]
    np.testing.assert_allclose(nearest_distances(images, TRAIN), expected, rtol=1e-6)


def figures(images: Tensor) -> tuple[float | None, float]:
    usual = float(np.median(nearest_distances(heldout(), TRAIN)))
    return nearness(nearest_distances(images, TRAIN), usual)


def test_held_out_images_are_no_copies() -> None:
    assert figures(heldout()) == (1.0, 0.0)


def test_copies_are_found_also_when_they_are_noisy_or_a_part() -> None:
    copies = scaled(TRAIN[:500])
    assert figures(copies) == (0.0, 1.0)
    ratio, copied = figures(noisy(copies, 0.05))
    assert ratio is not None
    assert ratio < 0.2
    assert copied > 0.99
    ratio, copied = figures(torch.cat([copies[:100], heldout()[100:]]))
    assert copied == pytest.approx(0.2)


@pytest.mark.parametrize(
    "images",
    [
        blurred(heldout(), 0.5),
        blurred(heldout(), 1.0),
        (heldout() + heldout().roll(1, 0)) / 2,
        few(heldout(), 5),
        heldout().mean(dim=0, keepdim=True).expand(500, -1, -1, -1),
        torch.zeros(500, 1, 8, 8),
        noisy(heldout(), 0.4),
    ],
    ids=["blurred", "more blurred", "averaged", "few", "all the same", "gray", "noisy"],
)
def test_bad_images_are_no_copies(images: Tensor) -> None:
    assert figures(images)[1] == 0.0


def test_data_that_hold_every_image_twice_have_no_ratio() -> None:
    distances = nearest_distances(scaled(TRAIN[:50]), TRAIN)
    assert nearness(distances, 0.0) == (None, 1.0)
