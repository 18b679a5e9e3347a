"""Power by frequency against slow sums, against what is known of noise, and against damage."""

import itertools

import numpy as np
import pytest
import torch
from damaged_digits import blurred, heldout, noisy

from edgegen.metrics import ring_power, spectrum_distance_db


def slow_ring_power(image: np.ndarray) -> list[float]:
    """The sum over the pixels for each frequency, as the definition of the Fourier transform has it."""
    channels, height, width = image.shape
    inner = min(height, width) // 2
    rings: list[list[float]] = [[] for _ in range(inner + 1)]
    for row, column in itertools.product(range(height), range(width)):
        wave = np.exp(
            -2j * np.pi * (row * np.arange(height)[:, None] / height + column * np.arange(width)[None, :] / width)
        )
        power = np.mean([abs((image[c] * wave).sum()) ** 2 for c in range(channels)]) / (height * width)
        radius = np.hypot(min(row, height - row) / height, min(column, width - column) / width)
        if radius > 0:
            rings[min(inner, int(np.ceil(radius * 2 * inner - 1e-9)) - 1)].append(float(power))
    return [float(np.mean(ring)) for ring in rings]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10), (2, 5, 7), (1, 4, 4)])
def test_ring_power_equals_the_slow_sums(shape: tuple[int, int, int]) -> None:
    levels = torch.randint(256, (2, *shape), generator=torch.Generator().manual_seed(0))
    images = levels / 127.5 - 1
    power = ring_power(images)
    for row, image in zip(power, images.double().numpy(), strict=True):
        np.testing.assert_allclose(row, slow_ring_power(image), rtol=1e-5)


def test_white_noise_has_its_variance_in_every_ring() -> None:
    images = 0.2 * torch.randn(2000, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(ring_power(images).mean(axis=0), 0.2**2, rtol=0.05)


def test_a_grid_of_pixels_is_in_the_corners_alone() -> None:
    checkerboard = (torch.arange(8)[:, None] + torch.arange(8)[None, :]) % 2 * 2.0 - 1
    power = ring_power(checkerboard[None, None])[0]
    assert power[-1] > 1
    assert power[:-1] == pytest.approx(np.zeros(4), abs=1e-12)


def test_the_distance_is_in_decibels_and_grows_with_damage() -> None:
    real = ring_power(heldout()).mean(axis=0)
    assert spectrum_distance_db(real, real) == 0
    assert spectrum_distance_db(real, 10 * real) == pytest.approx(10, abs=0.01)
    noises = [spectrum_distance_db(real, ring_power(noisy(heldout(), s)).mean(axis=0)) for s in (0, 0.1, 0.2, 0.4)]
    blurs = [spectrum_distance_db(real, ring_power(blurred(heldout(), s)).mean(axis=0)) for s in (0, 0.4, 0.6, 1.0)]
    for distances in (noises, blurs):
        assert all(less < more for less, more in itertools.pairwise(distances))
