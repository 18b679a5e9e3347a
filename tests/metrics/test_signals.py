"""Figures of signals: against references of NumPy and SciPy, and against damage of which there is more and more."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from damaged_signals import KINDS, damaged, parts
from scipy.signal import periodogram, welch

from edgegen.metrics import (
    TRANSFORMATIONS,
    SmallCNN,
    density_coverage,
    frechet,
    local_extractor,
    nearest_distances,
    pretext_labels,
    random_convolutions,
    ring_power,
    spectrum_distance_db,
)
from edgegen.metrics.extractor import _quarters_of_length


@pytest.mark.parametrize("length", [16, 17, 33, 128])
def test_power_is_scipys_periodogram(length: int) -> None:
    signals = torch.randn(3, 2, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, two_sided = periodogram(signals.numpy(), return_onesided=False, detrend=False)
    expected = two_sided.mean(axis=1)[:, 1 : length // 2 + 1]
    np.testing.assert_allclose(ring_power(signals), expected, rtol=1e-6, atol=1e-12)


def test_power_of_a_set_is_that_of_welch_with_one_segment_a_signal() -> None:
    real, _, _ = parts()
    joined = real[:, 0].double().flatten().numpy()
    _, density = welch(joined, window="boxcar", nperseg=128, noverlap=0, detrend=False)
    np.testing.assert_allclose(ring_power(real[:, :1]).mean(axis=0)[:-1], density[1:-1] / 2, rtol=1e-4)


def test_random_features_are_means_and_deviations_of_five_layers() -> None:
    space, signal = random_convolutions(2, signals=True), parts()[1][0]
    h, expected = signal.double().numpy(), []
    for kernel in space.kernels:
        padded, weights = np.pad(h, ((0, 0), (1, 1)), mode="edge"), kernel[:, :, 0].double().numpy()
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)
        maps = np.maximum(np.einsum("clk,ock->ol", windows, weights), 0)
        expected += [maps.mean(axis=1), maps.std(axis=1, ddof=1)]
        h = maps.reshape(len(maps), -1, 2).mean(axis=2)
    np.testing.assert_allclose(space.features(signal[None])[0], np.concatenate(expected), rtol=1e-4, atol=1e-5)
    assert space.name == "random-convolutions-1d-v1"


@pytest.mark.parametrize("kind", KINDS)
def test_the_distance_in_random_features_grows_with_damage(kind: str) -> None:
    space = random_convolutions(2, signals=True)
    real = space.features(parts()[0]).astype(np.float64)
    distances = [frechet(real, space.features(signals).astype(np.float64)) for signals in damaged(kind)]
    assert all(less < more for less, more in itertools.pairwise(distances)), distances


@pytest.mark.parametrize("kind", ["noise", "smoothing", "slower"])
def test_the_spectrum_grows_with_damage(kind: str) -> None:
    rings = [ring_power(signals).mean(axis=0) for signals in damaged(kind)]
    real = ring_power(parts()[0]).mean(axis=0)
    distances = [spectrum_distance_db(real, fake) for fake in rings]
    assert all(less < more for less, more in itertools.pairwise(distances)), distances


def test_coverage_falls_where_a_class_is_missing() -> None:
    space, (real, _, _) = random_convolutions(2, signals=True), parts()
    sets = parts()[1], damaged("missing class")[-1]
    whole, half = (space.features(signals[:350]).astype(np.float64) for signals in sets)
    rows = space.features(real[:350]).astype(np.float64)
    assert density_coverage(rows, half)[1] < 0.7 * density_coverage(rows, whole)[1]


def test_signals_are_not_rounded() -> None:
    _, others, _ = parts()
    small = others * (1 + 1e-4)
    assert float(nearest_distances(small[:4], others).max()) < 1e-4
    assert float(nearest_distances(small[:4], others).min()) > 0
    for space in (random_convolutions(2, signals=True), extractor()):
        assert (space.features(small) != space.features(others)).any()


def extractor():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = SmallCNN(channels=2, classes=4, signal=True)
    return local_extractor(network, task=TRANSFORMATIONS, source="oscillations", accuracy=0.5)


@pytest.mark.parametrize("length", [16, 17, 100, 128])
def test_the_classifier_takes_signals_of_every_length(length: int) -> None:
    network = extractor().network
    features = network.features(torch.randn(3, 2, length))
    assert features.shape == (3, 64)
    assert bool(torch.isfinite(features).all())
    assert [tuple(layer.shape[2:]) for layer in network.maps(torch.randn(1, 2, length))][::3] == [
        (1, length),
        (1, length // 4),
    ]
    assert not extractor().knows_classes


@pytest.mark.parametrize("length", [1, 3, 4, 6, 33])
def test_quarters_of_the_length_are_adaptive_average_pooling(length: int) -> None:
    h = torch.randn(2, 5, 1, length, dtype=torch.float64)
    torch.testing.assert_close(_quarters_of_length(h), F.adaptive_avg_pool2d(h, (1, 4)).flatten(1))


def test_signals_without_labels_are_told_by_what_was_done_to_them() -> None:
    signals = torch.arange(12.0).reshape(2, 1, 6)
    transformed, labels = pretext_labels(signals)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert transformed[::2, 0].tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, -1, -2, -3, -4, -5],
        [5, 4, 3, 2, 1, 0],
        [3, 4, 5, 0, 1, 2],
    ]
