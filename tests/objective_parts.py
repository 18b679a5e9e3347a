"""A velocity in one number, a batch that has all that a method can need, and the loss of a method on them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.objective import Objective


class Field(nn.Module):
    """A velocity with a parameter, that depends on x, t, the class and, where it is given, the second time."""

    second_time = True

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, r: Tensor | None = None) -> Tensor:
        ones = [1] * (x.ndim - 1)
        shift = 0.0 if labels is None else 0.1 * _shift(labels, ones)
        # Of u(x, t, r), which depends on r and is the velocity at r = t.
        length = 0.0 if r is None else (t - r).reshape(-1, *ones)
        return self.weight * x * (1 + t.reshape(-1, *ones) - 0.5 * length) + shift


def _shift(condition: Tensor, ones: list[int]) -> Tensor:
    """Of classes, or of images half as large."""
    if condition.ndim == 1:
        return condition.reshape(-1, *ones)
    return condition.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def loss_of(method: str, networks: dict[str, nn.Module], batch: Batch, seed: int = 7, **keys: Any) -> Tensor:
    """The student's loss by a method of the registry with these hyperparameters."""
    objective: Objective = load("objective", method)(**keys)
    return objective.losses(networks, {}, batch, generator(seed))["student"]


def with_small_images(batch: Batch) -> Batch:
    """The same batch with images half as large as its conditions, in the place of classes."""
    condition = functional.avg_pool2d(batch.images, 2)
    real = None if batch.real is None else with_small_images(batch.real)
    inputs = (*batch.inputs[:-1], condition)
    return replace(batch, condition=condition, real=real, inputs=inputs)


def with_signals(batch: Batch) -> Batch:
    """The same batch with the pixels of each image in a row: signals (batch, 1, 16)."""
    real = None if batch.real is None else with_signals(batch.real)
    images, noise, knots = (None if x is None else x.flatten(-2) for x in (batch.images, batch.noise, batch.knots))
    assert images is not None
    inputs = tuple(x.flatten(-2) if x.ndim == 4 else x for x in batch.inputs)
    return replace(batch, images=images, noise=noise, knots=knots, real=real, inputs=inputs)


def make_batch(step: int = 5) -> Batch:
    """Step `step` of 10: pairs with three states of each path, and real images."""
    g = generator(3)
    shape = (6, 1, 4, 4)
    images, labels, noise = torch.randn(shape, generator=g), torch.arange(6) % 3, torch.randn(shape, generator=g)
    real = Batch(step, 10, torch.randn(shape, generator=g).clamp(-1, 1), labels.flip(0))
    times = torch.tensor([1.0, 0.7, 0.3])
    knots = torch.stack([(1 - t) * images + t * noise for t in times], dim=1)
    return Batch(step, 10, images, labels, noise, knots, times, real=real, inputs=(noise, torch.ones(6), labels))


def f64(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def velocity(weight: float, x: np.ndarray, t: float, label: int) -> np.ndarray:
    return weight * x * (1 + t) + 0.1 * label


def mean_velocity(weight: float, x: np.ndarray, label: int, t: float = 1.0, r: float = 0.0) -> np.ndarray:
    """u(x, t, r): (t - r) times it is what a step takes away from x_t; by default, what one takes from noise."""
    return weight * x * (1 + t - 0.5 * (t - r)) + 0.1 * label
