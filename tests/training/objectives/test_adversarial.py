"""The adversarial method against its formula, in a game whose outcome is known, and the critics that it trains."""

from typing import Any

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, make_batch, mean_velocity
from torch import Tensor, nn

from edgegen.errors import TrainingError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.critics import FeatureHeads, recall
from edgegen.training.objective import Objective
from edgegen.training.ratio_network import RatioNetwork


class Judge(nn.Module):
    """A critic in two numbers: D(x_t, t) = weight (mean of x_t)^2 (1 + t) + label."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        shift = 0.0 if labels is None else labels[:, None]
        return self.weight * x.flatten(1).mean(dim=1, keepdim=True).square() * (1 + t[:, None]) + shift


def method(**keys: Any) -> Objective:
    objective: Objective = load("objective", "adversarial")(**{"critic": "small", "critic_warmup": 0, **keys})
    return objective


def softplus(x: float) -> float:
    return float(np.log1p(np.exp(x)))


def expected(batch: Batch, loss: str, weights: tuple[float, float, float]) -> tuple[float, float]:
    """(student's, critic's) in float64, sample by sample; `weights`: the student's, the critic's, of the regression."""
    own, judge, regression_weight = weights
    rng, real = generator(7), batch.real
    z, e, n, m = (f64(torch.randn(real.images.shape, generator=rng)) for _ in range(4))
    times = 0.6 * f64(torch.rand(6, generator=rng))
    student, critic = [], []
    for i in range(6):
        t, label = times[i], int(real.condition[i])

        def d(image: np.ndarray, i: int = i, t: float = t, label: int = label) -> float:
            return judge * np.mean((1 - t) * image + t * e[i]) ** 2 * (1 + t) + label

        x, g = f64(real.images)[i], z[i] - mean_velocity(own, z[i], label)
        made = f64(batch.noise)[i] - mean_velocity(own, f64(batch.noise)[i], int(batch.condition[i]))
        regression = np.mean((made - f64(batch.images)[i]) ** 2)
        if loss == "relativistic":
            adversarial, told = softplus(d(x) - d(g)), softplus(d(g) - d(x))
        else:
            adversarial, told = softplus(-d(g)), softplus(d(g)) + softplus(-d(x))
        penalty = (d(x + 0.1 * n[i]) - d(x)) ** 2 + (d(g + 0.1 * m[i]) - d(g)) ** 2
        student.append(adversarial + regression_weight * regression)
        critic.append(told + 10.0 * penalty)
    return float(np.mean(student)), float(np.mean(critic))


@pytest.mark.parametrize("loss", ["relativistic", "non_saturating"])
def test_losses_and_gradients_are_those_of_the_formula(loss: str) -> None:
    batch, h = make_batch(), 1e-5
    networks = {"student": Field(0.3), "critic": Judge(0.8)}
    values = method(loss=loss, regression_weight=0.4, distance="l2").losses(networks, {}, batch, generator(7))
    student, critic = expected(batch, loss, (0.3, 0.8, 0.4))
    assert values["student"].item() == pytest.approx(student, rel=1e-5)
    assert values["critic"].item() == pytest.approx(critic, rel=1e-5)
    (slope,) = torch.autograd.grad(values["student"], networks["student"].parameters(), retain_graph=True)
    high, low = (expected(batch, loss, (0.3 + d, 0.8, 0.4))[0] for d in (h, -h))
    assert float(slope) == pytest.approx((high - low) / (2 * h), rel=1e-3)
    (slope,) = torch.autograd.grad(values["critic"], networks["critic"].parameters())
    high, low = (expected(batch, loss, (0.3, 0.8 + d, 0.4))[1] for d in (h, -h))
    assert float(slope) == pytest.approx((high - low) / (2 * h), rel=1e-3)


@pytest.mark.parametrize(("step", "share"), [(1, 0), (3, 0), (4, 4), (8, 4)])
def test_a_penalty_of_each_fourth_step_is_four_times_as_large(step: int, share: int) -> None:
    batch, networks = make_batch(step=step), {"student": Field(0.3), "critic": Judge(0.8)}

    def losses(**keys: Any) -> dict[str, Tensor]:
        return method(**keys).losses(networks, {}, batch, generator(7))

    every_fourth, always, never = losses(penalty_every=4), losses(), losses(penalty=0.0)
    penalty = (always["critic"] - never["critic"]).item()
    assert penalty > 1e-3
    assert (every_fourth["critic"] - never["critic"]).item() == pytest.approx(share * penalty, rel=1e-4)
    assert every_fourth["student"] == always["student"] == never["student"]


def test_no_loss_moves_the_other_ones_network() -> None:
    networks = {"student": Field(0.3), "critic": Judge(0.8)}
    values = method().losses(networks, {}, make_batch(), generator(7))
    for loss, other in (("student", "critic"), ("critic", "student")):
        weights = list(networks[other].parameters())
        assert torch.autograd.grad(values[loss], weights, retain_graph=True, allow_unused=True) == (None,)


def test_in_the_warm_up_the_student_learns_from_the_pairs_alone_and_without_pairs_not_at_all() -> None:
    early = make_batch(step=3)

    def slope(**keys: Any) -> float:
        networks = {"student": Field(0.3), "critic": Judge(0.8)}
        method(**keys).losses(networks, {}, early, generator(7))["student"].backward()
        return float(networks["student"].weight.grad)

    assert slope(critic_warmup=4, regression_weight=0.0) == 0.0
    assert slope(critic_warmup=3, regression_weight=0.0) != 0.0
    pairs = slope(critic_warmup=4, regression_weight=0.4)
    assert pairs == pytest.approx(slope(critic_warmup=4, regression_weight=0.2) * 2, rel=1e-5)


class Level(nn.Module):
    """Every image is one level, which is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return x - self.level


class Linear(nn.Module):
    """D(x_t) = weight x_t."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return self.weight * x.flatten(1)


def distances_to_the_data(penalty: float) -> list[float]:
    """In the game of one real image at 1 and one generated one, both by gradient descent: arXiv:1801.04406, section 2.

    Plain descent circles around the equilibrium; a penalty on the gradient leads into it.
    """
    networks = {"student": Level(), "critic": Linear()}
    objective = method(regression_weight=0.0, penalty=penalty, penalty_noise=0.5, latest=0.01)
    distances = []
    for step in range(600):
        batch = Batch(step, 600, torch.ones(16, 1, 1, 1))
        values = objective.losses(networks, {}, batch, generator(step))
        for name, network in networks.items():
            (weight,) = network.parameters()
            (slope,) = torch.autograd.grad(values[name], weight, retain_graph=True)
            weight.grad = slope
        for network in networks.values():
            torch.optim.SGD(network.parameters(), lr=0.2).step()
        distances.append(abs(networks["student"].level.item() - 1.0))
    return distances[-100:]


def test_the_student_reaches_the_data_and_without_the_penalty_it_circles_around_them() -> None:
    assert max(distances_to_the_data(penalty=1.0)) < 0.05
    assert max(distances_to_the_data(penalty=0.0)) > 0.5


def unet(channels: tuple[int, ...] = (8, 16)) -> EdgeUNet:
    torch.manual_seed(1)
    return EdgeUNet(EdgeUNetConfig(sample_size=4, channels=channels, blocks=1, num_classes=3, embedding=8))


def test_heads_on_the_teachers_features_are_trained_and_the_teacher_is_not() -> None:
    teacher, student = unet().requires_grad_(False), unet((8, 8))
    nn.init.normal_(student.head.weight, std=0.1)
    objective = method(critic="teacher")
    assert objective.needs == {"real_images", "pairs", "teacher", "teacher_features"}
    trained = objective.networks(student, teacher)
    assert isinstance(trained["critic"].network, FeatureHeads)
    networks = {"student": student, "critic": trained["critic"].network, "teacher": teacher}
    values = objective.losses(networks, {}, make_batch(), generator(7))
    for name in ("student", "critic"):
        slopes = torch.autograd.grad(values[name], list(networks[name].parameters()), allow_unused=True)
        assert any(slope is not None and bool(slope.any()) for slope in slopes)
    assert {"adversarial", "regression", "gradient_ratio", "critic_accuracy", "batch_recall"} < values.keys()
    assert all(not parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_without_known_layers_is_refused_with_what_to_do() -> None:
    with pytest.raises(TrainingError, match="a Field: give the method what needs none"):
        method(critic="teacher").networks(unet(), Field(0.2))


def test_a_small_critic_needs_no_teacher_and_sees_noise_level_and_class() -> None:
    objective = method(regression_weight=0.0)
    assert objective.needs == {"real_images"}
    critic = objective.networks(unet(), None)["critic"].network
    assert isinstance(critic, RatioNetwork)
    for head in critic.heads:
        nn.init.normal_(head.last.weight)  # zero at first: it says nothing yet
    x, t, labels = torch.randn(5, 1, 4, 4, generator=generator(1)), torch.full((5,), 0.3), torch.zeros(5).long()
    logits = critic(x, t, labels)
    assert logits.shape == (5,)
    assert not torch.allclose(logits, critic(x, t + 0.2, labels))
    assert not torch.allclose(logits, critic(x, t, labels + 1))


def test_recall_falls_where_a_mode_is_lost_and_is_nothing_for_too_few_rows() -> None:
    centres = torch.tensor([-5.0, 5.0]).repeat(50)[:, None]
    real, fake = (centres + torch.randn(100, 4, generator=generator(seed)) for seed in (1, 2))
    assert float(recall(real, fake)) > 0.75
    assert 0.3 < float(recall(real, fake[::2])) < 0.55  # one of the two modes
    assert float(recall(real, fake.mean(dim=0, keepdim=True).expand(100, -1))) == 0.0
    assert bool(recall(real, fake[:3]).isnan())


def test_faults_are_said_in_words() -> None:
    objective = load("objective", "adversarial")()
    assert objective.warnings({"critic_accuracy": 0.6, "batch_recall": 0.9}) == []
    assert objective.warnings({}) == []
    (text,) = objective.warnings({"critic_accuracy": 0.99, "batch_recall": 0.9})
    assert text.startswith("the critic wins: it tells 99% of the images right")
    (text,) = objective.warnings({"critic_accuracy": 0.6, "batch_recall": 0.2})
    assert text.startswith("the student's images lose variety: recall within a batch is 0.20")
