"""What a method says beside its losses: it is logged, watched over ten lines, and moves nothing."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from training_runs import Stop, StopAt

from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.support.rng import generator
from edgegen.support.tables import Table
from edgegen.training.batch import Batch, TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.figures import CollapseCheck, by_time, spread
from edgegen.training.log import WARNINGS, read
from edgegen.training.loop import fit

IMAGES = torch.rand(20, 1, 4, 4, generator=generator(1)) * 2 - 1


class Says(Silent):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


class Student(nn.Module):
    """A velocity network whose one step gives `scale` times the noise."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return x - self.scale * x


class Watched(Table):
    """A made-up method with figures, and with a fault while its figure is above 2."""

    paper: ClassVar[str] = "arXiv:0000.00000"
    needs: ClassVar[frozenset[str]] = frozenset({"real_images"})
    high_until: int = 0

    def networks(self, student: nn.Module, teacher: nn.Module | None) -> Mapping[str, nn.Module]:
        return {}

    def losses(
        self, networks: Mapping[str, nn.Module], averages: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator
    ) -> Mapping[str, Tensor]:
        scale = networks["student"].scale
        figure = 3.0 * scale / scale.detach() if batch.step < self.high_until else scale * 0
        nothing = torch.tensor(math.nan)
        return {"student": (scale - 1).square(), "height": figure, "empty": nothing}

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        assert "empty" not in figures
        return [f"too high: {figures['height']:.2g}"] if figures["height"] > 1 else []


def train(folder: Path, objective: Table, *, scale: float = 1.0, steps: int = 300, progress: Silent) -> nn.Module:
    folder.mkdir(exist_ok=True)
    return fit(
        objective,  # type: ignore[arg-type]
        TrainingSet(IMAGES, noise=IMAGES),
        student=Student(scale),
        frozen={},
        settings=Training(steps=steps, batch=8, learning_rate=1e-9, checkpoint_every=50, warmup=0),
        seed=5,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=progress,
        label="distill",
    )["student"].raw


def test_means_by_time_are_those_of_each_bin() -> None:
    values, t = torch.tensor([1.0, 3.0, 10.0, 7.0]), torch.tensor([0.1, 0.2, 0.3, 1.0])
    means = {name: float(value) for name, value in by_time("residual", values, t).items()}
    assert list(means) == [f"residual t {low}" for low in ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")]
    first, second, third, fourth = means.values()
    assert (first, second, fourth) == (2.0, 10.0, 7.0)
    assert math.isnan(third)


def test_the_spread_is_that_of_the_batch_alone() -> None:
    images = torch.randn(1000, 1, 4, 4, generator=generator(0), dtype=torch.float64) * 0.3 + torch.rand(1, 1, 4, 4)
    assert float(spread(images)) == pytest.approx(0.3, rel=0.02)
    assert float(spread(images[:1].expand(8, -1, -1, -1))) == 0


def test_figures_are_logged_and_move_nothing(tmp_path: Path) -> None:
    raw = train(tmp_path, Watched(), scale=1.0, steps=20, progress=Silent())
    assert float(raw.scale.detach()) == 1.0, "the figure has a gradient"  # type: ignore[operator]
    assert read(tmp_path / "log.jsonl") == [{"step": step, "student": 0.0, "height": 0.0} for step in (10, 20)]


def test_a_fault_is_said_when_it_begins_and_stands_in_every_line(tmp_path: Path) -> None:
    """Of the first 10 lines 8 are high, with 3.0: the mean is above 1 while 4 of the last 10 are."""
    whole, broken, resumed = Says(), StopAt(120), Says()
    train(tmp_path / "whole", Watched(high_until=80), progress=whole)
    assert whole.messages == ["distill: warning: too high: 2.4"]
    lines = read(tmp_path / "whole" / "log.jsonl")
    assert [line["step"] for line in lines if WARNINGS in line] == [100, 110, 120, 130, 140]
    with pytest.raises(Stop):
        train(tmp_path / "broken", Watched(high_until=80), progress=broken)
    train(tmp_path / "broken", Watched(high_until=80), progress=resumed)
    assert resumed.messages == [], "said before the kill"
    assert read(tmp_path / "broken" / "log.jsonl") == lines


@pytest.mark.parametrize(("scale", "collapses"), [(0.01, True), (0.5, False)])
def test_a_generator_whose_images_are_alike_is_said_to_collapse(tmp_path: Path, scale: float, collapses: bool) -> None:
    progress = Says()
    train(tmp_path, load("objective", "pair_regression")(), scale=scale, steps=100, progress=progress)
    line = read(tmp_path / "log.jsonl")[-1]
    assert line["output_sd"] == pytest.approx(scale, rel=0.3)
    assert line["data_sd"] == pytest.approx(float(IMAGES.std()), rel=0.3)
    text = f"distill: warning: the generator's outputs are collapsing: standard deviation over the batch {scale:.0e}"
    assert [message[: len(text) - 5] for message in progress.messages] == [text[:-5]] * collapses


def test_one_step_of_other_methods_is_not_looked_at(tmp_path: Path) -> None:
    train(tmp_path, load("objective", "flow_matching")(), scale=0.01, steps=100, progress=(progress := Says()))
    assert not any("output_sd" in line for line in read(tmp_path / "log.jsonl"))
    assert progress.messages == []


def test_the_collapse_check_needs_images_to_compare_with() -> None:
    assert CollapseCheck(load("objective", "mean_flow")(), 0).enabled
    assert not CollapseCheck(load("objective", "free_flow")(), 0).enabled, "its batches are noise"
    assert not CollapseCheck(load("objective", "flow_matching")(), 0).enabled, "one step of it is blurred"
