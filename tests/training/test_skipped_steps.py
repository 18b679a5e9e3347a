"""A step whose loss or gradient is not finite changes nothing, and too many of them end the training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from training_runs import Stop, StopAt

from edgegen.errors import TrainingError
from edgegen.recipe import Training
from edgegen.support.progress import Silent
from edgegen.support.rng import generator
from edgegen.support.storage import load_metadata
from edgegen.support.tables import Table
from edgegen.training.batch import Batch, TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.log import WARNINGS, read
from edgegen.training.loop import fit
from edgegen.training.networks import Fitted, NetworkState, TrainedNetwork

IMAGES = torch.rand(20, 1, 4, 4, generator=generator(1)) * 2 - 1
STEPS = 120


class Normed(nn.Module):
    """A network with buffers that its forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.conv(x)).tanh())
        return out


class Spoilt(Table):
    """A made-up method with two networks, one of which has a bad loss or gradient in some steps, counted from 0."""

    paper: ClassVar[str] = "arXiv:0000.00000"
    needs: ClassVar[frozenset[str]] = frozenset({"real_images"})
    losses_at: tuple[int, ...] = ()
    gradients_at: tuple[int, ...] = ()
    inputs_at: tuple[int, ...] = ()

    def networks(self, student: nn.Module, teacher: nn.Module | None) -> Mapping[str, TrainedNetwork]:
        return {"critic": TrainedNetwork(nn.Conv2d(1, 1, 3, padding=1))}

    def losses(
        self, networks: Mapping[str, nn.Module], averages: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator
    ) -> Mapping[str, Tensor]:
        x = batch.images * math.nan if batch.step in self.inputs_at else batch.images
        student = (networks["student"](x) - batch.images).square().mean()
        critic = (networks["critic"](batch.images) - 0.1).square().mean()
        if batch.step in self.losses_at:
            critic = critic + math.inf  # its gradient is finite
        if batch.step in self.gradients_at:
            student = student + (networks["student"].head.bias * 0).sqrt().sum()  # 0, with an infinite slope
        return {"student": student, "critic": critic}


def train(folder: Path, progress: Silent | None = None, **bad: tuple[int, ...]) -> dict[str, Fitted]:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    return fit(
        Spoilt(**bad),  # type: ignore[arg-type]
        TrainingSet(IMAGES),
        student=Normed(),
        frozen={},
        settings=Training(steps=STEPS, batch=8, checkpoint_every=50, warmup=3, decay="none", ema=0.9, accumulate=2),
        seed=5,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=progress or Silent(),
        label="slim",
    )


@pytest.fixture(params=["waits", "on the device"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU; and as on CUDA, where a flag on the device decides."""
    if request.param == "on the device":
        begin = NetworkState.__init__

        def changed(self: NetworkState, *arguments: object, **options: object) -> None:
            begin(self, *arguments, **options)  # type: ignore[arg-type]
            self.waits = False

        monkeypatch.setattr(NetworkState, "__init__", changed)


@pytest.mark.usefixtures("way")
def test_a_skipped_step_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, averages, Adam's state, counts and buffers stay as they are, of both networks."""
    states: list[dict[str, Tensor]] = []
    update = NetworkState.update

    def recorded(self: NetworkState, rate: float, finite: Tensor) -> None:
        update(self, rate, finite)
        moments = {
            f"{i}.{key}": value for i, row in self.optimizer.state_dict()["state"].items() for key, value in row.items()
        }
        everything = {**self.network.state_dict(), **moments, "updates": self.updates}
        everything |= {f"average {key}": value for key, value in self.average.state_dict().items()}
        states.append({key: value.clone() for key, value in everything.items()})

    monkeypatch.setattr(NetworkState, "update", recorded)
    bad = {"losses_at": (20,), "gradients_at": (30,), "inputs_at": (40,)}
    train(tmp_path, **bad)
    for step in (20, 30, 40):
        for network in (0, 1):
            before, after, later = (states[2 * (step + offset) + network] for offset in (-1, 0, 1))
            assert all(torch.equal(before[key], after[key]) for key in before)
            assert not any(torch.equal(after[key], later[key]) for key in after if not key.endswith("num_batches"))
    lines = read(tmp_path / "log.jsonl")
    assert [line.get("skipped", 0) for line in lines] == [0, 0, 1, 2, *[3] * 8]
    assert "steps are skipped: the loss or its gradient was not finite in 2 of the last 100" in lines[3][WARNINGS]
    assert load_metadata(tmp_path / "checkpoint.safetensors")["updates.student"] == str(STEPS - 3)


@pytest.mark.usefixtures("way")
def test_the_count_is_kept_through_a_kill(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tmp_path, StopAt(70), losses_at=(20,))
    train(tmp_path, losses_at=(20, 80))
    assert [line.get("skipped", 0) for line in read(tmp_path / "log.jsonl")] == [0, 0, *[1] * 6, *[2] * 4]


def test_a_tenth_of_the_last_hundred_is_too_much(tmp_path: Path) -> None:
    train(tmp_path / "nine", losses_at=tuple(range(3, 102, 11)))
    with pytest.raises(TrainingError, match="slim: the loss is not finite at step 4 of 120; the checkpoint of step 5"):
        train(tmp_path / "ten", losses_at=tuple(range(3, 103, 10)))
    assert load_metadata(tmp_path / "ten" / "checkpoint.safetensors")["step"] == "50"
