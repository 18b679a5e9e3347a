"""The networks of a training run: each with its optimiser, its moving average and how often it is updated."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgegen.recipe import Training

BETAS = (0.9, 0.999)  # Adam's, as in SlimFlow


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that a method trains, updated in every `every`-th step from `first` on, which is counted from 0.

    None: as in the recipe's table.
    """

    network: nn.Module
    every: int = 1
    first: int = 0
    learning_rate: float | None = None
    ema: float | None = None
    clip_norm: float | None = None
    betas: tuple[float, float] = BETAS

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"a network is updated every {self.every} steps; 1 or more is needed")

    def settings(self, table: Training) -> Training:
        """The table with this network's own values."""
        own = {"learning_rate": self.learning_rate, "ema": self.ema, "clip_norm": self.clip_norm}
        return table.model_copy(update={key: value for key, value in own.items() if value is not None})


@dataclass(frozen=True)
class Fitted:
    """A trained network: the weights of the last step, and their moving average (on the CPU)."""

    raw: nn.Module
    ema: nn.Module


class NetworkState:
    """A trained network during the run; the ramp of its moving average depends on `updates`, its own count.

    Losses call `wrapped`: the network itself, or compiled, or distributed over several processes.
    """

    def __init__(self, trained: TrainedNetwork, table: Training, accelerator: Accelerator, *, compile: bool) -> None:
        self.network, self.every, self.first, self.updates = trained.network, trained.every, trained.first, 0
        self.settings, self.accelerator = trained.settings(table), accelerator
        self.network.train().requires_grad_(True).to(accelerator.device)
        if accelerator.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters: list[Tensor] = list(self.network.parameters())
        adam = torch.optim.Adam(self.parameters, lr=self.settings.learning_rate, betas=trained.betas, fused=True)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        run = torch.compile(self.network) if compile else self.network
        prepared: tuple[nn.Module, Any] = accelerator.prepare(run, adam)
        self.wrapped, self.optimizer = prepared

    def is_due(self, step: int) -> bool:
        """Whether the network is updated in this step, counted from 0."""
        return step >= self.first and (step + 1) % self.every == 0

    def backward(self, loss: Tensor) -> None:
        """The gradient of its loss in its own weights, and in no other network's."""
        self.optimizer.zero_grad()
        self.accelerator.backward(loss, inputs=self.parameters)

    def update(self, rate: float) -> None:
        """One step of the optimiser, and of the moving average."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.accelerator.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        self.updates += 1
        # The ramp (1 + n) / (10 + n) forgets the first, random weights (TensorFlow's ExponentialMovingAverage).
        decay = min(self.settings.ema, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), self.parameters, 1 - decay)
            for kept, now in zip(self.average.buffers(), self.network.buffers(), strict=True):
                kept.copy_(now)

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(torch.isfinite(p).all()) for p in self.parameters)

    def fitted(self) -> Fitted:
        return Fitted(self.network.cpu().eval(), self.average.cpu())


def start(
    trained: Mapping[str, TrainedNetwork], table: Training, accelerator: Accelerator, *, compile: bool
) -> dict[str, NetworkState]:
    """The state of each network before the first step; the networks are changed in place."""
    return {name: NetworkState(network, table, accelerator, compile=compile) for name, network in trained.items()}
