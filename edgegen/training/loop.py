"""The only training loop: any objective, any number of trained nets, one device or many, killed and resumed at will.

Step k sees a batch and random numbers made from (seed, k) alone and the state of step k - 1, which a checkpoint holds
whole; so a run that was killed ends with the same weights as one that was not (bit for bit on the same CPU).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgegen.errors import DataError, TrainingError
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.recipe import Training
from edgegen.support.progress import Progress
from edgegen.support.rng import generator
from edgegen.support.storage import load_metadata, load_tensors, save_tensors
from edgegen.training.batch import Batch, Examples, epoch_rows
from edgegen.training.log import TrainingLog

LOG_EVERY = 10  # steps between looks at the loss: each look waits for the device
BETAS = (0.9, 0.999)  # Adam's, as in SlimFlow


class Objective(Protocol):
    """A training method: a frozen dataclass whose fields are its hyperparameters."""

    @property
    def paper(self) -> str: ...
    def losses(self, nets: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Fitted:
    """A trained net: the weights of the last step, and their moving average (on the CPU)."""

    raw: nn.Module
    ema: nn.Module


def fit(
    objective: Objective,
    data: Examples,
    *,
    trained: Mapping[str, nn.Module],
    frozen: Mapping[str, nn.Module],
    settings: Training,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
    label: str,
    compile: bool = False,
) -> dict[str, Fitted]:
    """Trains the nets in `trained` (in place) and returns them; `folder` keeps the checkpoint and the logs.

    Raises TrainingError, with the step, when a loss or a weight stops being finite; the last good checkpoint stays.
    """
    state = _State.start(trained, settings, accelerator, compile=compile)
    first = state.restore(folder / CHECKPOINT, label)
    log = TrainingLog(folder, first, enabled=accelerator.is_main_process)
    device = accelerator.device
    data = data.to(device)
    helpers = {name: net.to(device).eval().requires_grad_(False) for name, net in frozen.items()}
    nets = {**helpers, **state.wrapped}
    rank, ranks = accelerator.process_index, accelerator.num_processes
    bad_step = torch.full((), -1, device=device)
    with progress.task(label, settings.steps, start=first) as task:
        for step in range(first, settings.steps):
            rows = epoch_rows(len(data), step, settings.batch, seed)
            batch = data.batch(rows[rank::ranks], device, step=step, steps=settings.steps)
            if batch.images.ndim == 4 and device.type == "cuda":
                batch = _channels_last(batch)
            rng = generator(seed, step, rank, device=device)
            with accelerator.autocast():
                losses = objective.losses(nets, batch, rng)
            for name, loss in losses.items():
                finite = torch.isfinite(loss.detach())
                bad_step = torch.where((bad_step < 0) & ~finite, step, bad_step)
                state.step(name, loss, learning_rate(settings, step))
            done = step + 1
            due = done % settings.checkpoint_every == 0 or done == settings.steps
            if done % LOG_EVERY == 0 or due:
                values = {name: float(loss.detach()) for name, loss in losses.items()}
                _check_finite(int(bad_step), label, settings, folder)
                log.add(done, values, learning_rate(settings, step))
                task.update(done, "  ".join(f"loss {value:.4g}" for value in values.values()))
            if due:
                state.check_weights(done, label, settings, folder)
                if accelerator.is_main_process:
                    log.flush()
                    state.save(folder / CHECKPOINT, done)
                accelerator.wait_for_everyone()
    log.close()
    return state.fitted()


def learning_rate(settings: Training, step: int) -> float:
    """Linear warm-up, then constant, or falling to zero by half a cosine."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return rate


class _State:
    """Nets, optimisers and moving averages of a run; what a checkpoint holds."""

    def __init__(
        self,
        nets: dict[str, nn.Module],
        wrapped: dict[str, nn.Module],
        optimizers: dict[str, Any],
        averages: dict[str, nn.Module],
        settings: Training,
        accelerator: Accelerator,
    ) -> None:
        self.nets, self.wrapped, self.optimizers, self.averages = nets, wrapped, optimizers, averages
        self.settings, self.accelerator = settings, accelerator
        self.updates = 0

    @staticmethod
    def start(
        trained: Mapping[str, nn.Module], settings: Training, accelerator: Accelerator, *, compile: bool
    ) -> "_State":
        nets: dict[str, nn.Module] = {}
        wrapped: dict[str, nn.Module] = {}
        optimizers: dict[str, Any] = {}
        averages: dict[str, nn.Module] = {}
        for name, net in trained.items():
            net.train().requires_grad_(True).to(accelerator.device)
            if accelerator.device.type == "cuda":
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            adam = torch.optim.Adam(net.parameters(), lr=settings.learning_rate, betas=BETAS, fused=True)
            run = torch.compile(net) if compile else net
            nets[name], averages[name] = net, copy.deepcopy(net).eval().requires_grad_(False)
            wrapped[name], optimizers[name] = accelerator.prepare(run, adam)
        return _State(nets, wrapped, optimizers, averages, settings, accelerator)

    def step(self, name: str, loss: Tensor, rate: float) -> None:
        """One optimiser step of one net, and its moving average."""
        net, optimizer = self.wrapped[name], self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(net.parameters(), self.settings.clip_norm)
        optimizer.step()
        self.updates += 1
        # The ramp (1 + n) / (10 + n) forgets the first, random weights (TensorFlow's ExponentialMovingAverage).
        decay = min(self.settings.ema, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            averages: list[Tensor] = list(self.averages[name].parameters())
            weights: list[Tensor] = list(self.nets[name].parameters())
            torch._foreach_lerp_(averages, weights, 1 - decay)
            for kept, now in zip(self.averages[name].buffers(), self.nets[name].buffers(), strict=True):
                kept.copy_(now)

    def save(self, path: Path, done: int) -> None:
        tensors: dict[str, Tensor] = {}
        for name, net in self.nets.items():
            moments = self.optimizers[name].state_dict()["state"]
            tensors |= {f"net.{name}.{key}": value for key, value in net.state_dict().items()}
            tensors |= {f"ema.{name}.{key}": value for key, value in self.averages[name].state_dict().items()}
            for index, entry in moments.items():
                tensors |= {f"adam.{name}.{index}.{key}": torch.as_tensor(value) for key, value in entry.items()}
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        save_tensors(path, plain, metadata={"step": str(done), "updates": str(self.updates)})

    def restore(self, path: Path, label: str) -> int:
        """Takes up a checkpoint if there is one; returns the number of steps done."""
        if not path.exists():
            return 0
        try:
            tensors, metadata = load_tensors(path), load_metadata(path)
            for name, net in self.nets.items():
                net.load_state_dict(_below(tensors, f"net.{name}."))
                self.averages[name].load_state_dict(_below(tensors, f"ema.{name}."))
                moments: dict[int, dict[str, Tensor]] = {}
                for key, value in _below(tensors, f"adam.{name}.").items():
                    index, _, field = key.partition(".")
                    moments.setdefault(int(index), {})[field] = value
                groups = self.optimizers[name].state_dict()["param_groups"]
                self.optimizers[name].load_state_dict({"state": moments, "param_groups": groups})
            self.updates = int(metadata["updates"])
            return int(metadata["step"])
        except (DataError, KeyError, ValueError, RuntimeError) as e:
            raise TrainingError(f"{path}: not a checkpoint of {label}; delete it and run the same command again") from e

    def check_weights(self, done: int, label: str, settings: Training, folder: Path) -> None:
        """A checkpoint of weights that are not finite would be no help: stop before it replaces the last good one."""
        for net in self.nets.values():
            if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
                _check_finite(done - 1, label, settings, folder)

    def fitted(self) -> dict[str, Fitted]:
        return {name: Fitted(net.cpu().eval(), self.averages[name].cpu()) for name, net in self.nets.items()}


def _check_finite(bad_step: int, label: str, settings: Training, folder: Path) -> None:
    if bad_step < 0:
        return
    path = folder / CHECKPOINT
    kept = (
        f"the checkpoint of step {load_metadata(path)['step']} is kept in {path}"
        if path.exists()
        else "no checkpoint yet"
    )
    raise TrainingError(
        f"{label}: the loss is not finite at step {bad_step + 1} of {settings.steps}; {kept}. "
        f"Lower learning_rate (now {settings.learning_rate:g}) or clip_norm (now {settings.clip_norm:g}), "
        "or look at the images for wrong values"
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _channels_last(batch: Batch) -> Batch:
    images = batch.images.contiguous(memory_format=torch.channels_last)
    noise = None if batch.noise is None else batch.noise.contiguous(memory_format=torch.channels_last)
    return Batch(batch.step, batch.progress, images, batch.labels, noise)
