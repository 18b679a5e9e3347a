"""Progressive distillation against two steps of the teacher, round by round, and on a linear flow."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, mean_velocity
from torch import Tensor, nn
from training_runs import CONFIG, Stop, StopAt

from edgegen.models.edge_unet import EdgeUNet
from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.support.rng import generator
from edgegen.training.batch import Batch, TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.loop import fit
from edgegen.training.pairs import real_images


def test_rounds_halve_the_steps_and_the_last_two_are_twice_as_long() -> None:
    record = load("objective", "progressive")
    assert list(record(teacher_steps=8).rounds(50)) == [0, 10, 30]
    assert list(record(teacher_steps=16).rounds(60)) == [0, 10, 20, 40]
    assert list(record(teacher_steps=2).rounds(7)) == [0]


@pytest.mark.parametrize(("step", "teacher", "steps"), [(0, 0.25, 4), (1, 0.25, 4), (3, 0.2, 2), (9, 0.2, 1)])
def test_the_formula(step: int, teacher: float, steps: int) -> None:
    """Rounds of 8 teacher steps begin at the steps 0, 2, 6 of 10; the first has the pipeline's teacher."""
    batch, rng = make_batch(step), generator(7)
    real = real_images(batch)
    e, times = f64(torch.randn(real.images.shape, generator=rng)), torch.randint(1, steps + 1, (6,), generator=rng)
    rows, d = [], 0.5 / steps
    for i, number in enumerate(times.tolist()):
        t, x, label = number / steps, f64(real.images)[i], int(real.condition[i])
        x_t = (1 - t) * x + t * e[i]
        middle = x_t - d * mean_velocity(teacher, x_t, label, t, t - d)
        end = middle - d * mean_velocity(teacher, middle, label, t - d, t - 2 * d)
        # On the data estimate x_t - t v, weighted by max(SNR, 1).
        error = t * (mean_velocity(0.3, x_t, label, t, t - 2 * d) - (x_t - end) / (2 * d))
        rows.append(max((1 - t) ** 2 / t**2, 1.0) * np.mean(error**2))
    networks = {"student": Field(0.3), "teacher": Field(0.25), "halved": Field(0.2)}
    got = loss_of("progressive", networks, batch)
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-4)
    assert networks["halved"].weight.item() == pytest.approx(0.2), "copied in the first step of a round alone"


def test_a_round_begins_with_the_averaged_student_of_the_round_before() -> None:
    objective = load("objective", "progressive")()
    student, average = Field(0.3), Field(0.35)
    (name, trained), *_ = objective.networks(student, Field(0.25)).items()
    networks = {"student": student, "teacher": Field(0.25), name: trained.network}
    for step, weight in ((0, 0.3), (1, 0.3), (2, 0.35)):
        objective.losses(networks, {"student": average}, make_batch(step), generator(0))
        assert trained.network.weight.item() == pytest.approx(weight)
    assert trained.every > 10**9
    assert trained.network is not student


class ByTime(nn.Module):
    """v = a_k x, a number for each of the times k / 8."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.zeros(9))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return self.slopes[(8 * t).round().long()][:, None, None, None] * x


def test_on_a_linear_flow_one_step_of_the_student_is_all_steps_of_the_teacher() -> None:
    class Linear(nn.Module):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
            return (0.3 + t[:, None, None, None]) * x

    expected = 1.0
    for k in range(8, 0, -1):
        expected *= 1 - (0.3 + k / 8) / 8
    objective, student, steps = load("objective", "progressive")(), ByTime(), 500
    networks = {"student": student, "teacher": Linear(), "halved": copy.deepcopy(student)}
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    shown = []
    for step in range(steps):
        images = torch.randn(128, 1, 2, 2, generator=generator(1, step))
        losses = objective.losses(networks, {"student": student}, Batch(step, steps, images), generator(0, step))
        shown.append(int(losses["student_steps"]))
        optimizer.zero_grad()
        losses["student"].backward()
        optimizer.step()
    assert [shown[0], shown[100], shown[-1]] == [4, 2, 1]
    assert 1 - student.slopes[8].item() == pytest.approx(expected, abs=2e-3)


def test_a_training_that_was_broken_off_in_a_round_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Rounds of 4 teacher steps begin at 0 and 15 of 30; the checkpoint of step 20 has the second round's teacher."""

    def train(folder: Path, progress: Silent) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        student, teacher = EdgeUNet(CONFIG), EdgeUNet(CONFIG)
        teacher.head.weight.data.normal_(0, 0.1)
        images = torch.rand(20, 1, 4, 4, generator=generator(1)) * 2 - 1
        fitted = fit(
            load("objective", "progressive")(teacher_steps=4),
            TrainingSet(images, torch.arange(20) % 3),
            student=student,
            frozen={"teacher": teacher},
            settings=Training(steps=30, batch=8, checkpoint_every=20, warmup=3),
            seed=5,
            folder=folder,
            accelerator=accelerator("fp32"),
            progress=progress,
            label="distill",
        )
        return fitted["student"].ema.state_dict()

    whole = train(tmp_path / "whole", Silent())
    with pytest.raises(Stop):
        train(tmp_path / "broken", StopAt(25))
    resumed = train(tmp_path / "broken", Silent())
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
