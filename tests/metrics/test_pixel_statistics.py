"""Saturation and spread against values that are known."""

import pytest
import torch

from edgegen.metrics.pixel_statistics import PixelStatistics, PixelSums, pixel_statistics


def statistics(images: torch.Tensor) -> PixelStatistics:
    return pixel_statistics([PixelSums.of(images)])


def test_saturation_is_what_a_screen_shows_as_black_or_white() -> None:
    images = torch.tensor([-3.0, -1.0, -0.999, -0.5, 0.0, 0.5, 1.0, 2.0]).reshape(2, 1, 2, 2)
    assert statistics(images).saturated == 5 / 8  # -0.999 rounds to black


def test_spread_is_over_images_and_not_over_pixels() -> None:
    alike = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2).repeat(5, 1, 1, 1)
    assert statistics(alike).spread == pytest.approx(0.0, abs=1e-7)
    signs = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert statistics(signs).spread == pytest.approx(2**0.5)  # of -1 and 1, over n - 1


def test_parts_are_added() -> None:
    images = torch.rand(40, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    shown = ((images + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    parts = pixel_statistics(PixelSums.of(part) for part in images.split(7))
    assert parts.saturated == pytest.approx(float((shown.abs() == 1).double().mean()))
    assert parts.spread == pytest.approx(float(shown.double().std(dim=0).mean()), rel=1e-12)
