"""Distances between images; the perceptual one against LPIPS written out position by position."""

import numpy as np
import pytest
import torch
from torch import nn

from edgegen.metrics.extractor import SmallCNN
from edgegen.registry import load
from edgegen.training.distances import distance_of, in_features, needs_of, pseudo_huber


def classifier() -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(channels=1, classes=3).eval().requires_grad_(False)


def test_the_distance_in_features_is_lpips_with_equal_weights() -> None:
    network = classifier()
    a, b = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    rows = np.zeros(3)
    for one, two in zip(network.maps(a), network.maps(b), strict=True):
        _, _, height, width = one.shape
        for i in range(3):
            for y in range(height):
                for x in range(width):
                    u, v = (part[i, :, y, x].double().numpy() for part in (one, two))
                    u, v = (vector / max(np.linalg.norm(vector), 1e-10) for vector in (u, v))
                    rows[i] += np.sum((u - v) ** 2) / (height * width)
    assert in_features(a, b, network).numpy() == pytest.approx(rows, rel=1e-5)
    whole = distance_of("perceptual", {"features": network})(a, b)
    assert whole.numpy() == pytest.approx(rows + pseudo_huber(a, b).numpy(), rel=1e-5)
    assert in_features(a, a, network).abs().max() == 0


def test_the_maps_are_those_of_the_features() -> None:
    """The widths and sizes of the layers; the last, halved and averaged by quarter, gives the features."""
    network, images = classifier(), torch.randn(2, 1, 8, 8)
    maps = network.maps(images)
    assert [tuple(layer.shape[1:]) for layer in maps] == [(32, 8, 8), (32, 8, 8), (64, 4, 4), (64, 4, 4)]
    pooled = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(maps[-1], 2), 2).flatten(1)
    assert torch.allclose(network.penultimate(pooled).relu(), network.features(images), atol=1e-6)


def test_a_perceptual_distance_pulls_images_together_and_its_network_stays() -> None:
    network = classifier()
    image = torch.randn(4, 1, 8, 8, requires_grad=True)
    target = torch.randn(4, 1, 8, 8)
    distance = distance_of("perceptual", {"features": network})
    before = distance(image, target).sum()
    (gradient,) = torch.autograd.grad(before, image)
    assert distance(image - 0.05 * gradient, target).sum() < before
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize(
    "method", ["pair_regression", "flow_guided_distillation", "annealing_reflow", "cmt", "consistency_tuning"]
)
def test_a_method_needs_the_features_where_its_distance_does(method: str) -> None:
    record = load("objective", method)
    assert record(distance="perceptual").needs == record().needs | {"feature_network"}
    assert needs_of("l2") == needs_of("pseudo_huber") == frozenset()
