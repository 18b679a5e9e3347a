"""2-RF++'s options of annealing reflow: times, and distances of velocities and images."""

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, velocity

from edgegen.flow.time_sampling import u_shaped
from edgegen.metrics.extractor import SmallCNN
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.distances import in_features

C = 0.00054 * 4  # sqrt(16 pixels)


@pytest.mark.parametrize("times", ["uniform", "u_shaped"])
@pytest.mark.parametrize("distance", ["pseudo_huber", "perceptual"])
def test_the_formula(times: str, distance: str) -> None:
    batch, rng = make_batch(9), generator(7)  # the noise is no more annealed
    torch.randn(batch.images.shape, generator=rng)
    t = 1e-3 + (1 - 1e-3) * torch.rand(6, generator=rng) if times == "uniform" else u_shaped(6, rng)
    torch.manual_seed(0)
    classifier = SmallCNN(channels=1, classes=3).requires_grad_(False)
    huber, images = [], []
    for i in range(6):
        e, x, s = f64(batch.noise)[i], f64(batch.images)[i], float(t[i])
        x_t = (1 - s) * x + s * e
        v = velocity(0.3, x_t, s, i % 3)
        huber.append((np.sqrt(np.sum((v - (e - x)) ** 2) + C * C) - C) / 4)
        images.append(torch.from_numpy(x_t - s * v).float())
    expected = np.array(huber)
    if distance == "perceptual":
        lpips = in_features(torch.stack(images), batch.images, classifier)
        expected = (1 - f64(t)) * expected + f64(lpips)
    networks = {"student": Field(0.3), "features": classifier}
    got = loss_of("annealing_reflow", networks, batch, times=times, distance=distance)
    assert got.item() == pytest.approx(expected.mean(), rel=1e-4)


def test_defaults_are_left_out_so_that_the_keys_of_results_stay() -> None:
    record = load("objective", "annealing_reflow")
    assert record().model_dump() == {"anneal_steps": None, "flip": False}
    assert record(times="u_shaped", distance="perceptual").model_dump().keys() >= {"times", "distance"}
