"""A short training of one network, and a progress that breaks it off."""

from pathlib import Path

import torch

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.support.rng import generator
from edgegen.training.batch import TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.loop import Stopping, fit
from edgegen.training.networks import Fitted

CONFIG = EdgeUNetConfig(sample_size=4, channels=(8, 8), blocks=1, num_classes=3, embedding=16)


class Stop(Exception):
    pass


class StopAt(Silent):
    """Breaks off at a step, as a kill would, at a point where no checkpoint is due."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done: int, note: str = "") -> None:
        if done >= self.step:
            raise Stop


def train(
    folder: Path, *, progress: Silent | None = None, stopping: Stopping | None = None, **settings: object
) -> Fitted:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    images = torch.rand(20, 1, 4, 4, generator=generator(1)) * 2 - 1
    return fit(
        load("objective", "flow_matching")(),
        TrainingSet(images, torch.arange(20) % 3),
        student=EdgeUNet(CONFIG),
        frozen={},
        settings=Training(steps=45, batch=8, checkpoint_every=20, warmup=3, **settings),  # type: ignore[arg-type]
        seed=5,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=progress or Silent(),
        label="teacher",
        stopping=stopping,
    )["student"]
