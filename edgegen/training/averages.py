"""Moving averages of weights: exponential, and of power functions (EDM2, arXiv:2312.02696, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn


class Decay(Protocol):
    """The share of the average that stays in update n, counted from 1."""

    def __call__(self, n: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Exponential:
    """`ema`, less at the start: (1 + n) / (10 + n) forgets the first, random weights (TensorFlow's average)."""

    ema: float

    def __call__(self, n: Tensor) -> Tensor:
        return ((1 + n) / (10 + n)).clamp(max=self.ema)


@dataclass(frozen=True)
class Power:
    """(1 - 1 / n)^(gamma + 1) (Eq. 4): weights theta_k of the updates count like k^(gamma + 1) - (k - 1)^(gamma + 1).

    `width` is sigma_rel, the standard deviation of that profile as a share of the training so far (Eq. 6).
    """

    width: float

    @cached_property
    def gamma(self) -> float:
        """The positive root of sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) (Algorithm 2)."""
        square = self.width**-2
        roots = np.roots([1.0, 7.0, 16.0 - square, 12.0 - square])
        return float(max(root.real for root in roots if abs(root.imag) < 1e-9))

    def __call__(self, n: Tensor) -> Tensor:
        return (1 - 1 / n) ** (self.gamma + 1)


@dataclass(frozen=True)
class Average:
    """A copy of a network whose weights are an average; `name` is empty for that which methods see."""

    name: str
    network: nn.Module
    decay: Decay

    def follow(self, network: nn.Module, updates: Tensor, finite: Tensor, *, waits: bool) -> None:
        """Moves towards the weights after `updates` updates; not at all where `finite` is false, a flag on the device.

        With `waits` it is known to be true.
        """
        averages: list[Tensor] = list(self.network.parameters())
        weights: list[Tensor] = list(network.parameters())
        if waits:
            torch._foreach_lerp_(averages, weights, 1 - float(self.decay(updates.double())))
            return
        difference = torch._foreach_sub(weights, averages)
        # nan_to_num: before the first update that is not skipped, n is 0.
        torch._foreach_mul_(difference, (1 - self.decay(updates.float())).nan_to_num(0.0, 0.0, 0.0) * finite)
        torch._foreach_add_(averages, difference)


def decays(ema: float, widths: Sequence[float]) -> dict[str, Decay]:
    """By name, that which methods see first."""
    if not widths:
        return {"": Exponential(ema)}
    return {"" if index == 0 else f"{width:g}": Power(width) for index, width in enumerate(widths)}
