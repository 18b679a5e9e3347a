"""Several networks in one loop, each at its own pace, against a reference written by hand."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from training_runs import Stop, StopAt
from training_runs import train as train_one

from edgegen.errors import TrainingError
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.recipe import Training
from edgegen.support.progress import Silent
from edgegen.support.rng import generator
from edgegen.support.storage import load_metadata, load_tensors, save_tensors
from edgegen.support.tables import Table
from edgegen.training.batch import Batch, TrainingSet, epoch_rows
from edgegen.training.distributed import accelerator
from edgegen.training.loop import fit
from edgegen.training.networks import Fitted, TrainedNetwork
from edgegen.training.trainer import learning_rate

SEED = 5
SETTINGS = Training(steps=47, batch=8, checkpoint_every=20, warmup=3, ema=0.9, clip_norm=0.5)
STUDENT_EVERY, CRITIC_EVERY = 3, 2
CRITIC = {"learning_rate": 4e-3, "ema": 0.6, "clip_norm": 0.05}
CRITIC_BETAS = (0.5, 0.9)
IMAGES = torch.rand(20, 1, 4, 4, generator=generator(1)) * 2 - 1


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))


def both_losses(student: nn.Module, critic: nn.Module, average: nn.Module, x: Tensor, e: Tensor) -> dict[str, Tensor]:
    """Each loss goes through the other network too, and may move its own alone."""
    return {
        "student": (critic(student(x)) - average(x)).square().mean(),
        "critic": (student(critic(x + e)) - x).square().mean(),
    }


class WithCritic(Table):
    """A made-up method that trains a second network."""

    paper: ClassVar[str] = "arXiv:0000.00000"
    needs: ClassVar[frozenset[str]] = frozenset({"real_images"})
    seeded: bool = True
    forgets: bool = False

    def networks(self, student: nn.Module, teacher: nn.Module | None) -> Mapping[str, TrainedNetwork]:
        critic = network(2) if self.seeded else nn.Conv2d(1, 1, 3, padding=1)
        return {
            "critic": TrainedNetwork(critic, every=CRITIC_EVERY, betas=CRITIC_BETAS, **CRITIC),
            "student": TrainedNetwork(student, every=STUDENT_EVERY),
        }

    def losses(
        self, networks: Mapping[str, nn.Module], averages: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator
    ) -> Mapping[str, Tensor]:
        e = torch.randn(batch.images.shape, generator=rng)
        losses = both_losses(networks["student"], networks["critic"], averages["critic"], batch.images, e)
        return {name: losses[name] for name in batch.due if not self.forgets}


def train(folder: Path, *, progress: Silent | None = None, **keys: bool) -> dict[str, Fitted]:
    folder.mkdir(exist_ok=True)
    student = network(1)
    torch.seed()  # what the method draws for its networks must not depend on it
    return fit(
        WithCritic(**keys),
        TrainingSet(IMAGES),
        student=student,
        frozen={},
        settings=SETTINGS,
        seed=SEED,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=progress or Silent(),
        label="slim",
    )


class Reference:
    """One network with plain torch, and its moving average in float64."""

    def __init__(self, net: nn.Module, settings: Training, betas: tuple[float, float]) -> None:
        self.net, self.settings, self.updates = net, settings, 0
        self.weights = list(net.parameters())
        self.adam = torch.optim.Adam(self.weights, betas=betas)
        self.average = copy.deepcopy(net).double()

    def step(self, gradient: tuple[Tensor, ...], step: int) -> None:
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        for weight, g in zip(self.weights, gradient, strict=True):
            weight.grad = g * min(1.0, self.settings.clip_norm / float(norm))
        self.adam.param_groups[0]["lr"] = learning_rate(self.settings, step)
        self.adam.step()
        self.updates += 1
        decay = min(self.settings.ema, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for kept, weight in zip(self.average.parameters(), self.weights, strict=True):
                kept.copy_(decay * kept + (1 - decay) * weight.double())


def test_two_networks_are_trained_at_their_own_pace(tmp_path: Path) -> None:
    student = Reference(network(1), SETTINGS, (0.9, 0.999))
    critic = Reference(network(2), SETTINGS.model_copy(update=CRITIC), CRITIC_BETAS)
    for step in range(SETTINGS.steps):
        x = IMAGES[epoch_rows(len(IMAGES), step, SETTINGS.batch, SEED)]
        e = torch.randn(x.shape, generator=generator(SEED, step, 0))
        losses = both_losses(student.net, critic.net, copy.deepcopy(critic.average).float(), x, e)
        gradients = {
            name: torch.autograd.grad(losses[name], part.weights)
            for name, part in (("student", student), ("critic", critic))
        }
        if step % STUDENT_EVERY == STUDENT_EVERY - 1:
            student.step(gradients["student"], step)
        if step % CRITIC_EVERY == CRITIC_EVERY - 1:
            critic.step(gradients["critic"], step)
    fitted = train(tmp_path)
    for name, expected in (("student", student), ("critic", critic)):
        for got, weight in zip(fitted[name].raw.parameters(), expected.weights, strict=True):
            torch.testing.assert_close(got, weight, rtol=1e-4, atol=1e-5)
        for got, weight in zip(fitted[name].ema.parameters(), expected.average.parameters(), strict=True):
            torch.testing.assert_close(got.double(), weight, rtol=1e-4, atol=1e-5)
    metadata = load_metadata(tmp_path / CHECKPOINT)
    assert metadata == {"step": "47", "updates.student": "15", "updates.critic": "23"}


def bits(fitted: dict[str, Fitted]) -> dict[str, Tensor]:
    return {
        f"{name}.{part}.{key}": value
        for name, pair in fitted.items()
        for part in ("raw", "ema")
        for key, value in getattr(pair, part).state_dict().items()
    }


@pytest.mark.parametrize("step", [10, 30])  # before the first checkpoint, and after it
@pytest.mark.parametrize("seeded", [True, False])
def test_two_networks_that_were_broken_off_end_with_the_same_bits(tmp_path: Path, step: int, seeded: bool) -> None:
    whole = bits(train(tmp_path / "whole", seeded=seeded))
    with pytest.raises(Stop):
        train(tmp_path / "broken", progress=StopAt(step), seeded=seeded)
    resumed = bits(train(tmp_path / "broken", seeded=seeded))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_checkpoint_from_before_there_were_several_networks_is_loaded(tmp_path: Path) -> None:
    whole = train_one(tmp_path / "whole")
    with pytest.raises(Stop):
        train_one(tmp_path / "old", progress=StopAt(30))
    path = tmp_path / "old" / CHECKPOINT
    assert load_metadata(path) == {"step": "20", "updates.student": "20"}
    save_tensors(path, load_tensors(path), metadata={"step": "20", "updates": "20"})
    resumed = train_one(tmp_path / "old")
    assert all(torch.equal(a, b) for a, b in zip(whole.ema.parameters(), resumed.ema.parameters(), strict=True))


def test_a_method_that_forgets_a_loss_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="slim: the method gives no loss of critic in step 2"):
        train(tmp_path, forgets=True)
    with pytest.raises(ValueError, match="updated every 0 steps; 1 or more"):
        TrainedNetwork(network(0), every=0)
