"""The networks of a training run: each with its optimiser, its moving average and how often it is updated."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgegen.recipe import Training
from edgegen.training.averages import Average, decays
from edgegen.training.distributed import add_up, take_from_first

BETAS = (0.9, 0.999)  # Adam's, as in SlimFlow
NEVER = 1 << 62  # steps between updates of a network that is copied and not trained


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
        widths = {} if self.ema is None else {"ema_widths": ()}
        return table.model_copy(update=widths | {key: value for key, value in own.items() if value is not None})


@dataclass(frozen=True)
class Fitted:
    """A trained network: the weights of the last step, and their moving average (on the CPU).

    `others` are averages of further widths, by the width: "0.1".
    """

    raw: nn.Module
    ema: nn.Module
    others: Mapping[str, nn.Module] = field(default_factory=dict)


class NetworkState:
    """A trained network during the run; the ramp of its moving average depends on `updates`, its own count.

    Losses call `wrapped`: the network itself, or compiled, with the precision of the run. With `several` it has an
    average of each of the table's widths, otherwise of the first one.
    """

    def __init__(
        self, trained: TrainedNetwork, table: Training, accelerator: Accelerator, *, several: bool, compile: bool
    ) -> None:
        self.network, self.every, self.first = trained.network, trained.every, trained.first
        self.settings, self.accelerator = trained.settings(table), accelerator
        self.network.train().requires_grad_(True).to(accelerator.device)
        if accelerator.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters: list[Tensor] = list(self.network.parameters())
        take_from_first(self.parameters)
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=self.settings.learning_rate, betas=trained.betas, fused=True
        )
        # On CUDA nothing waits to learn whether a step is skipped: Adam and the average are told by a flag there.
        self.waits = accelerator.device.type != "cuda"
        self.updates = torch.zeros((), dtype=torch.int64, device=accelerator.device)
        widths = self.settings.ema_widths
        self.averages = [
            Average(name, copy.deepcopy(self.network).eval().requires_grad_(False), decay)
            for name, decay in decays(self.settings.ema, widths if several else widths[:1]).items()
        ]
        self.average = self.averages[0].network
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
            for average in self.averages:
                average.follow(self.network, self.updates, finite, waits=self.waits)
            for average in self.averages:
                for kept, now in zip(average.network.buffers(), self.network.buffers(), strict=True):
                    kept.copy_(torch.where(finite, now, kept))
            self._restore_buffers()

    def _restore_buffers(self) -> None:
        """Takes back what the forward pass of a skipped step has left: the average has those of the last good one."""
        for kept, now in zip(self.average.buffers(), self.network.buffers(), strict=True):
            now.copy_(kept)

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(torch.isfinite(p).all()) for p in self.parameters)

    def fitted(self) -> Fitted:
        first, *others = self.averages
        return Fitted(
            self.network.cpu().eval(), first.network.cpu(), {other.name: other.network.cpu() for other in others}
        )


def start(
    trained: Mapping[str, TrainedNetwork], table: Training, accelerator: Accelerator, *, compile: bool
) -> dict[str, NetworkState]:
    """The state of each network before the first step; the networks are changed in place."""
    return {
        name: NetworkState(network, table, accelerator, several=name == "student", compile=compile)
        for name, network in trained.items()
    }
