"""Short trainings, what any method trains on, and a progress that breaks a training off."""

from pathlib import Path

import torch
from torch import nn

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import signature_of
from edgegen.program.inputs import InputSource
from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.support.rng import generator
from edgegen.training.batch import Examples, FreshInputs, PairsAndImages, TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.loop import fit
from edgegen.training.networks import Fitted
from edgegen.training.stopping import Stopping

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


def pairs_and_helpers(method: str) -> tuple[Examples, dict[str, nn.Module]]:
    """Made-up examples and frozen networks of what a method needs, at the size of CONFIG."""
    images, noise = (
        torch.rand(20, 1, 4, 4, generator=generator(1)) * 2 - 1,
        torch.randn(20, 1, 4, 4, generator=generator(2)),
    )
    knots = torch.stack([noise, 0.5 * noise + 0.5 * images], dim=1)
    needs = load("objective", method)().needs
    helpers = {name: random_network(seed) for seed, name in enumerate(("teacher", "slimmed"))}
    if not needs & {"pairs", "trajectories", "real_images"}:
        return FreshInputs(InputSource(signature_of(CONFIG), 0), 20), helpers
    of_images = TrainingSet(images, torch.arange(20) % 3)
    of_pairs = TrainingSet(images, torch.arange(20) % 3, noise, knots, torch.tensor([1.0, 0.5]))
    data: Examples = of_pairs if needs & {"pairs", "trajectories"} else of_images
    if data is of_pairs and "real_images" in needs:
        data = PairsAndImages(of_pairs, of_images)
    return data, helpers


def random_network(seed: int) -> EdgeUNet:
    """A network of CONFIG whose last layer is not zero."""
    torch.manual_seed(seed)
    network = EdgeUNet(CONFIG)
    nn.init.normal_(network.head.weight, std=0.1)
    return network
