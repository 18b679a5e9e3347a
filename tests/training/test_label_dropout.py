"""Samples that are not told their class, and guidance in the target of a flow map."""

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, make_batch
from torch import Tensor

from edgegen.errors import TrainingError
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.label_dropout import dropped

W, NONE = 0.3, 3


class Classes(Field):
    unconditional_class = NONE


def test_a_share_of_the_labels_is_that_of_no_class() -> None:
    labels = torch.arange(4000) % 3
    changed, mask = dropped(Classes(W), labels, 0.1, generator(0))
    assert torch.equal(changed, torch.where(mask, NONE, labels))
    assert float(mask.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert not dropped(Classes(W), labels, 0.0, generator(0))[1].any()


def test_what_has_no_label_for_it_or_no_classes_is_refused() -> None:
    with pytest.raises(TrainingError, match="Field knows no label that stands for no class"):
        dropped(Field(W), torch.zeros(2, dtype=torch.int64), 0.5, generator(0))
    with pytest.raises(TrainingError, match="label_dropout: the examples have no classes"):
        dropped(Classes(W), None, 0.5, generator(0))


def test_flow_matching_learns_without_the_class_where_it_is_dropped() -> None:
    objective = load("objective", "flow_matching")(label_dropout=0.5)
    assert objective.needs == {"real_images", "unconditional_class"}
    assert load("objective", "flow_matching")().needs == {"real_images"}
    batch = make_batch()
    loss = objective.losses({"student": Classes(W)}, {}, batch, generator(7))["student"]
    rng = generator(7)
    e = f64(torch.randn(batch.images.shape, generator=rng))
    t = f64(torch.rand(6, generator=rng))
    mask = (torch.rand(6, generator=rng) < 0.5).numpy()
    assert 0 < mask.sum() < 6
    total = 0.0
    for i, x in enumerate(f64(batch.images)):
        label = NONE if mask[i] else int(batch.condition[i])
        v = W * ((1 - t[i]) * x + t[i] * e[i]) * (1 + t[i]) + 0.1 * label
        total += np.square(v - (e[i] - x)).mean()
    assert loss.item() == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize(("mixing", "share"), [(None, 1 - 1 / 1.5), (0.5, 0.5), (0.0, 0.0)])
def test_the_target_of_a_flow_map_is_guided_for_the_samples_that_are_told_their_class(
    mixing: float | None, share: float
) -> None:
    """At r = t the residual is u - v, whose mean square is a figure: without the power, its normaliser is 1."""
    keys = {"equal_share": 1.0, "power": 0.0, "label_dropout": 0.5, "guidance": 1.5, "guidance_mixing": mixing}
    objective = load("objective", "mean_flow")(**keys)
    assert objective.needs == {"real_images", "second_time", "unconditional_class"}
    batch = make_batch()
    got = objective.losses({"student": Classes(W)}, {}, batch, generator(7))
    real, rng = batch.real, generator(7)
    e = f64(torch.randn(real.images.shape, generator=rng))
    t = f64(objective.two_times(6, rng)[0])
    mask = (torch.rand(6, generator=rng) < 0.5).numpy()
    assert 0 < mask.sum() < 6
    total = 0.0
    for i, x in enumerate(f64(real.images)):
        x_t = (1 - t[i]) * x + t[i] * e[i]
        own, none = (W * x_t * (1 + t[i]) + 0.1 * label for label in (int(real.condition[i]), NONE))
        v = e[i] - x
        guided = share * own + (1 - share) * (1.5 * v - 0.5 * none)
        total += np.square(none - v if mask[i] else own - guided).mean()
    assert got["student"].item() == pytest.approx(total / 6, rel=1e-4)


class TwoPoints(torch.nn.Module):
    """u(x, t, r, class) of data at one point a class, m, which is learned with that of no class: (x - m) / t."""

    second_time, unconditional_class = True, 2

    def __init__(self) -> None:
        super().__init__()
        self.points = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor, r: Tensor | None = None) -> Tensor:
        return (x - self.points[labels][:, None, None, None]) / t[:, None, None, None]


def test_points_of_two_classes_are_pushed_apart_as_guidance_says() -> None:
    """Data at -1 and 1: told no class the network learns their mean 0 at late times, told it w (1 - 0) there."""
    student = TwoPoints()
    objective = load("objective", "mean_flow")(
        label_dropout=0.3, guidance=2.0, equal_share=1.0, power=0.0, t_mean=6.0, t_sd=0.1
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    labels = torch.arange(256) % 2
    x = (2.0 * labels - 1)[:, None, None, None].expand(256, 1, 2, 2)
    for step in range(150):
        optimizer.zero_grad()
        objective.losses({"student": student}, {}, Batch(step, 150, x, labels), generator(step))["student"].backward()
        optimizer.step()
    assert student.points.tolist() == pytest.approx([-2.0, 2.0, 0.0], abs=0.15)


def test_guidance_of_a_student_needs_what_it_is_made_of() -> None:
    make = load("objective", "mean_flow")
    with pytest.raises(ValueError, match="needs a student that also knows no class: label_dropout"):
        make(guidance=2.0)
    for keys in ({"velocity": "teacher"}, {"examples": "pairs"}):
        with pytest.raises(ValueError, match=r"guided by \[teacher\] guidance"):
            make(guidance=2.0, label_dropout=0.1, **keys)
