"""Saturation and spread against values that are known."""

import pytest
import torch

from edgegen.metrics.pixel_statistics import pixel_statistics


def test_saturation_is_what_a_screen_shows_as_black_or_white() -> None:
    images = torch.tensor([-3.0, -1.0, -0.999, -0.5, 0.0, 0.5, 1.0, 2.0]).reshape(2, 1, 2, 2)
    assert pixel_statistics(images).saturated == 5 / 8  # -0.999 rounds to black


def test_spread_is_over_images_and_not_over_pixels() -> None:
    alike = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2).repeat(5, 1, 1, 1)
    assert pixel_statistics(alike).spread == 0.0
    signs = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert pixel_statistics(signs).spread == pytest.approx(2**0.5)  # of -1 and 1, over n - 1
