"""Trains some methods in all processes of torchrun, into the folder of the first argument."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from training_runs import pairs_and_helpers, random_network

from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.support.storage import save_tensors
from edgegen.support.tables import Table
from edgegen.training.batch import Batch
from edgegen.training.distributed import accelerator, state, wait_for_all
from edgegen.training.loop import fit
from edgegen.training.networks import Fitted, TrainedNetwork
from edgegen.training.objective import Objective
from edgegen.training.stopping import Stopping, fallen

STOPPED = "stopped"
STEPS, BATCH = 40, 9  # 9 images are unequal parts for two processes
BAD_STEP = 12  # of the second method, in the last process alone


class WithCritic(Table):
    """Two networks; the student's loss goes through the critic, which is called three times in a step."""

    paper: ClassVar[str] = "arXiv:0000.00000"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def networks(self, student: nn.Module, teacher: nn.Module | None) -> Mapping[str, TrainedNetwork]:
        critic = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3))
        return {"critic": TrainedNetwork(critic), "student": TrainedNetwork(student, every=2)}

    def losses(
        self, networks: Mapping[str, nn.Module], averages: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator
    ) -> Mapping[str, Tensor]:
        student, critic = networks["student"], networks["critic"]
        z = torch.randn(batch.images.shape, generator=rng)
        made = z - student(z, z.new_ones(len(z)), batch.condition)
        own = (critic(batch.images) - 1).square().mean() + critic(made.detach()).square().mean()
        if batch.step == BAD_STEP and state().process_index == state().num_processes - 1:
            own = own + math.inf  # its gradient is finite
        return {"student": (critic(made) - 1).square().mean(), "critic": own}


METHODS: dict[str, Objective] = {
    "flow_guided_distillation": load("objective", "flow_guided_distillation")(),
    "with_critic": WithCritic(),
}


def main(folder: Path, *, accumulate: int = 1) -> None:
    """A log of each method, and of one that ends early by a figure that only the first process knows."""
    for name, objective in METHODS.items():
        train(folder / name, objective, accumulate=accumulate)
    figures = iter((0.7, 0.7, 0.8, 0.4))
    reason = fallen("it", most=0.3, advice="")
    stopping = Stopping("recall", lambda network: next(figures), every=10, reason=reason, goes_back=True)
    result = train(folder / STOPPED, METHODS["flow_guided_distillation"], accumulate=accumulate, stopping=stopping)
    save_tensors(folder / STOPPED / f"{state().process_index}.safetensors", dict(result["student"].raw.state_dict()))


def train(
    folder: Path, objective: Objective, *, accumulate: int, stopping: Stopping | None = None
) -> Mapping[str, Fitted]:
    data, frozen = pairs_and_helpers("flow_guided_distillation")
    student = random_network(state().process_index)  # made alike by the loop
    folder.mkdir(parents=True, exist_ok=True)
    wait_for_all()
    return fit(
        objective,
        data,
        student=student,
        frozen=frozen,
        settings=Training(steps=STEPS, batch=BATCH, warmup=3, checkpoint_every=20, accumulate=accumulate),
        seed=5,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=Silent(),
        label=folder.name,
        stopping=stopping,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
