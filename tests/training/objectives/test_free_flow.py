"""FreeFlow: its residual by hand, no correction where fake and teacher agree, the map of a known flow."""

import numpy as np
import pytest
import torch
from gaussian_flow import GaussianVelocity, Scale, coefficient, known, trained_scale
from objective_parts import Field, f64, make_batch

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch


@pytest.mark.parametrize("derivative", ["jvp", "central"])
def test_the_prediction_follows_the_formula_and_an_equal_fake_network_corrects_nothing(derivative: str) -> None:
    objective = load("objective", "free_flow")(derivative=derivative, power=0.0, correct_every=2)
    batch = make_batch()
    r = f64(torch.rand(6, generator=generator(7)))
    squares, slopes = [], []
    for i in (1, 3, 5):
        z, label = f64(batch.noise)[i], int(batch.condition[i])
        u = 0.3 * z * (1.5 + 0.5 * r[i]) + 0.1 * label  # Field at t = 1
        x_r = z - (1 - r[i]) * u
        v = 0.25 * x_r * (1 + r[i]) + 0.1 * label
        residual = u - v - (1 - r[i]) * 0.3 * z * 0.5
        squares.append(np.mean(residual**2))
        slopes.append(2 * np.mean(residual * z * (1.5 + 0.5 * r[i])))
    networks = {"student": Field(0.3), "teacher": Field(0.25), "fake": Field(0.25)}
    values = objective.losses(networks, {}, batch, generator(7))
    values["student"].backward()
    assert values["student"].item() == pytest.approx(np.sum(squares) / 6, rel=1e-3)
    assert networks["student"].weight.grad.item() == pytest.approx(np.sum(slopes) / 6, rel=1e-3)
    assert networks["fake"].weight.grad is networks["teacher"].weight.grad is None
    values["fake"].backward()
    assert networks["fake"].weight.grad is not None
    assert values["correction"].item() == 0.0


def test_the_correction_widens_images_that_are_too_narrow() -> None:
    """Images of sd 0.2 where the teacher's have 0.5: with the fake network at 0.2, u must fall (x = z - u z)."""
    student = Scale()
    torch.nn.init.zeros_(student.c[-1].weight)
    torch.nn.init.constant_(student.c[-1].bias, 0.8)
    networks = {"student": student, "teacher": GaussianVelocity(0.5), "fake": GaussianVelocity(0.2)}
    noise = torch.randn(256, 1, 2, 2, generator=generator(1))
    slopes = []
    for weight in (0.0, 100.0):
        objective = load("objective", "free_flow")(correction_weight=weight, power=0.0, correct_every=2)
        student.zero_grad()
        objective.losses(networks, {}, Batch(0, 1, noise, None, noise), generator(3))["student"].backward()
        slopes.append(student.c[-1].bias.grad.item())
    assert slopes[1] - slopes[0] > 0.1


def test_it_reaches_the_map_of_a_known_flow() -> None:
    student, _ = trained_scale("free_flow", 0.4, steps=400, correction_weight=0.0)
    assert coefficient(student, 1.0, 0.0) == pytest.approx(known(0.4, 1.0, 0.0), abs=0.03)


def test_a_fake_network_that_lags_is_said_in_words() -> None:
    objective = load("objective", "free_flow")()
    assert objective.warnings({"fake": 0.3, "teacher on generated": 0.3}) == []
    (warning,) = objective.warnings({"fake": 0.6, "teacher on generated": 0.3})
    assert warning.startswith("the fake network lags: its loss on the student's images is 2.0 times")
