"""The networks of a training run: each with its optimiser, its moving average and how often it is updated."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgegen.recipe import Training
from edgegen.training.distributed import add_up

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

    Losses call `wrapped`: the network itself, or compiled, with the precision of the run.
    """

    def __init__(self, trained: TrainedNetwork, table: Training, accelerator: Accelerator, *, compile: bool) -> None:
        self.network, self.every, self.first = trained.network, trained.every, trained.first
        self.settings, self.accelerator = trained.settings(table), accelerator
        self.network.train().requires_grad_(True).to(accelerator.device)
        if accelerator.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters: list[Tensor] = list(self.network.parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=self.settings.learning_rate, betas=trained.betas, fused=True
        )
        # On CUDA nothing waits to learn whether a step is skipped: Adam and the average are told by a flag there.
        self.waits = accelerator.device.type != "cuda"
        self.updates = torch.zeros((), dtype=torch.int64, device=accelerator.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        run = torch.compile(self.network) if compile else self.network
        # Without DistributedDataParallel, which knows neither a loss through two networks nor forward differentiation.
        self.wrapped: nn.Module = accelerator.prepare_model(run, evaluation_mode=True)

    def is_due(self, step: int) -> bool:
        """Whether the network is updated in this step, counted from 0."""
        return step >= self.first and (step + 1) % self.every == 0

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of its loss in its own weights, and in no other network's."""
        torch.autograd.backward(loss, inputs=self.parameters)

    def clip(self, loss: Tensor) -> Tensor:
        """Adds up the gradient over all processes and clips its norm; whether it and the loss are finite: a flag."""
        total = loss.float().clone()
        add_up([*(weight.grad for weight in self.parameters if weight.grad is not None), total])
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        return torch.isfinite(norm) & torch.isfinite(total)

    def update(self, rate: float, finite: Tensor) -> None:
        """One step of the optimiser, and of the moving average; nothing changes where `finite` is false."""
        if self.waits and not finite:
            self._restore_buffers()
            self.optimizer.zero_grad()
            return
        if not self.waits:
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += finite
        with torch.no_grad():
            self._average(finite)

    def _average(self, finite: Tensor) -> None:
        """Moves the average towards the weights, by 1 - decay."""
        averages: list[Tensor] = list(self.average.parameters())
        # The ramp (1 + n) / (10 + n) forgets the first, random weights (TensorFlow's ExponentialMovingAverage).
        if self.waits:
            updates = int(self.updates)
            decay = min(self.settings.ema, (1 + updates) / (10 + updates))
            torch._foreach_lerp_(averages, self.parameters, 1 - decay)
        else:
            ramp = (1 + self.updates) / (10 + self.updates)
            difference = torch._foreach_sub(self.parameters, averages)
            torch._foreach_mul_(difference, (1 - ramp.clamp(max=self.settings.ema)) * finite)
            torch._foreach_add_(averages, difference)
        for kept, now in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(torch.where(finite, now, kept))
            now.copy_(kept)

    def _restore_buffers(self) -> None:
        """Takes back what the forward pass of a skipped step has left: the average has those of the step before."""
        for kept, now in zip(self.average.buffers(), self.network.buffers(), strict=True):
            now.copy_(kept)

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
