"""Distribution matching against its formulas, on distributions whose scores are known, and its warnings."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, make_batch, mean_velocity, velocity
from torch import Tensor, nn

from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch, TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.trainer import Trainer

DIVERGENCES = ("kl", "fisher", "f", "score_distance")
LOW, HIGH = 0.1, 0.9


def objective(**keys: Any) -> Any:
    return load("objective", "distribution_matching")(**{"low": LOW, "high": HIGH, **keys})


class LogRatio(nn.Module):
    """A made-up log p / q, to weigh samples by."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return x.flatten(1).sum(dim=1) * t


def draws(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """z, the noise of the student's x_t and of the fake's, and their times: as the objective draws them."""
    rng, shape = generator(7), batch.images.shape
    z, e, e_fake = (f64(torch.randn(shape, generator=rng)) for _ in range(3))
    t, t_fake = (LOW + (HIGH - LOW) * f64(torch.rand(len(z), generator=rng)) for _ in range(2))
    return z, e, e_fake, t, t_fake


def sample_loss(divergence: str, alpha: float, x: np.ndarray, noise: np.ndarray, t: float, c: int, n: float) -> float:
    """The loss of one image whose gradient in x is that of fisher and score_distance."""
    x_t = (1 - t) * x + t * noise
    teacher, fake = (x_t - t * velocity(weight, x_t, t, c) for weight in (0.25, 0.4))
    if divergence == "fisher":
        return float(np.sum((teacher - fake) * (teacher - x - alpha * (teacher - fake)))) / n
    huber_c = 0.00054 * np.sqrt(x.size)
    length = np.sqrt(np.sum((teacher - fake) ** 2) + huber_c**2)
    return float(np.sum((teacher - fake) * (fake - x))) / length


def gradient_of(divergence: str, alpha: float, x: np.ndarray, noise: np.ndarray, t: float, c: int) -> np.ndarray:
    """In x: by the formula of kl, by central differences of the others."""
    x_t = (1 - t) * x + t * noise
    teacher, fake = (x_t - t * velocity(weight, x_t, t, c) for weight in (0.25, 0.4))
    n = float(np.mean(np.abs(x - teacher)))
    if divergence in ("kl", "f"):
        return (fake - teacher) / n
    gradient, h = np.zeros_like(x), 1e-6
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = h
        up, down = (sample_loss(divergence, alpha, x + sign * step, noise, t, c, n) for sign in (1, -1))
        gradient[index] = (up - down) / (2 * h)
    return gradient


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_students_gradient_is_that_of_the_formula_sample_by_sample(divergence: str) -> None:
    batch = make_batch()
    z, e, e_fake, t, t_fake = draws(batch)
    labels = batch.real.condition.tolist()
    method = objective(divergence=divergence, alpha=1.2, ratio="forward_kl")
    networks: dict[str, nn.Module] = {"student": Field(0.3), "teacher": Field(0.25), "fake": Field(0.4)}
    networks["ratio"] = LogRatio()
    got = method.losses(networks, {}, batch, generator(7))
    student_gradient = torch.autograd.grad(got["student"], networks["student"].weight)[0]
    x = [z[i] - mean_velocity(0.3, z[i], labels[i]) for i in range(6)]
    gradients = [gradient_of(divergence, 1.2, x[i], e[i], t[i], labels[i]) for i in range(6)]
    if divergence == "f":
        r = np.exp([np.sum((1 - t[i]) * x[i] + t[i] * e[i]) * t[i] for i in range(6)])
        h = np.clip(r / r.mean(), 0.1, 20)
        gradients = [h[i] / h.mean() * gradients[i] for i in range(6)]
    # x moves by -1.5 z when the field's weight grows.
    expected = np.mean([gradients[i] * -1.5 * z[i] for i in range(6)])
    assert float(student_gradient) == pytest.approx(expected, rel=1e-3)
    assert got["student"].item() == pytest.approx(0.5 * np.mean(np.square(gradients)), rel=1e-3)
    fake_errors = [
        velocity(0.4, (1 - s) * x[i] + s * e_fake[i], s, labels[i]) - (e_fake[i] - x[i]) for i, s in enumerate(t_fake)
    ]
    assert got["fake"].item() == pytest.approx(np.mean(np.square(fake_errors)), rel=1e-4)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
def test_the_gradient_is_zero_where_the_fake_network_is_the_teacher(divergence: str, alpha: float) -> None:
    networks: dict[str, nn.Module] = {"student": Field(0.3), "teacher": Field(0.25), "fake": Field(0.25)}
    networks["ratio"] = LogRatio()
    method = objective(divergence=divergence, alpha=alpha)
    loss = method.losses(networks, {}, make_batch(), generator(7))["student"]
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert float(torch.autograd.grad(loss, networks["student"].weight)[0]) == pytest.approx(0.0, abs=1e-4)


def test_losses_move_their_own_network_alone() -> None:
    networks: dict[str, nn.Module] = {"student": Field(0.3), "teacher": Field(0.25), "fake": Field(0.4)}
    losses = objective(divergence="fisher").losses(networks, {}, make_batch(), generator(7))
    losses["student"].backward()
    assert networks["student"].weight.grad is not None
    assert networks["fake"].weight.grad is None
    losses["fake"].backward()
    assert networks["fake"].weight.grad is not None
    assert networks["teacher"].weight.grad is None


def test_the_student_is_not_evaluated_for_its_loss_where_it_is_not_due() -> None:
    networks: dict[str, nn.Module] = {"student": Field(0.3), "teacher": Field(0.25), "fake": Field(0.4)}
    batch = replace(make_batch(), due=frozenset({"fake"}))
    assert "student" not in objective().losses(networks, {}, batch, generator(7))


MEANS, SD = torch.tensor([[-0.6, 0.2], [0.6, -0.2]]), 0.25


class Mixture(nn.Module):
    """The velocity of two Gaussians in the plane (images 1 x 1 x 2), moved by `shift`: in closed form."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.means = MEANS + shift

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        points, t = x.flatten(1)[:, None], t[:, None, None]
        variance = (1 - t) ** 2 * SD**2 + t**2
        away = points - (1 - t) * self.means
        shares = torch.softmax(-0.5 * (away.square() / variance).sum(dim=2), dim=1)
        images = self.means + (1 - t) * SD**2 / variance * away
        estimate = (shares[:, :, None] * images).sum(dim=1)
        return ((points[:, 0] - estimate) / t[:, 0]).view_as(x)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        points, t = x.flatten(1)[:, None], t[:, None, None]
        variance = (1 - t) ** 2 * SD**2 + t**2
        squares = (points - (1 - t) * self.means).square() / variance
        return torch.logsumexp(-0.5 * squares.sum(dim=2) - variance[:, :, 0].log(), dim=1)


class MixtureStudent(nn.Module):
    """A one-step map whose images have the distribution of `Mixture` with its shift, a parameter."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        first, second = z.flatten(1).unbind(dim=1)
        # The sign chooses the Gaussian; the size, through its own distribution, is standard normal again.
        uniform = (2 * torch.special.ndtr(first.abs()) - 1).clamp(1e-6, 1 - 1e-6)
        within = torch.stack([torch.special.ndtri(uniform), second], dim=1)
        x = MEANS[(first > 0).long()] + SD * within + self.shift
        return z - x.view_as(z)


class MixtureRatio(nn.Module):
    def __init__(self, real: Mixture, generated: Mixture) -> None:
        super().__init__()
        self.real, self.generated = real, generated

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return self.real.log_density(x, t) - self.generated.log_density(x, t)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_mixtures_shift_goes_back_with_the_scores_in_closed_form(divergence: str) -> None:
    method, images = objective(divergence=divergence), torch.zeros(512, 1, 1, 2)
    teacher = Mixture(0.0)

    def gradient(shift: float, seed: int) -> float:
        student, fake = MixtureStudent(shift), Mixture(shift)
        networks: dict[str, nn.Module] = {"student": student, "teacher": teacher, "fake": fake}
        networks["ratio"] = MixtureRatio(teacher, fake)
        loss = method.losses(networks, {}, Batch(0, 10, images), generator(seed))["student"]
        return float(torch.autograd.grad(loss, student.shift)[0])

    assert gradient(0.3, 0) > 0 > gradient(-0.3, 1)
    assert gradient(0.0, 2) == pytest.approx(0.0, abs=1e-6)
    shift = 0.3
    for seed in range(60):
        shift -= 0.1 * gradient(shift, seed)
    assert abs(shift) < 0.05


class Gaussian(nn.Module):
    """The velocity of N(mean, sd^2) in every pixel; both are parameters."""

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        self.mean, self.log_sd = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(sd).log())

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        t, variance = t[:, None, None, None], (2 * self.log_sd).exp()
        gain = (1 - t) * variance / ((1 - t) ** 2 * variance + t**2)
        estimate = self.mean + gain * (x - (1 - t) * self.mean)
        return (x - estimate) / t


class Affine(nn.Module):
    """One step is x = mean + sd z."""

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        self.mean, self.sd = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(sd))

    def forward(self, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return z - (self.mean + self.sd * z)


def test_the_score_distances_gradient_is_that_of_the_mean_length_of_the_difference() -> None:
    """SIM's theorem on Gaussians: d/dg E |R - F_g| of fixed samples, though F_g is never differentiated in g."""
    t, sd, g = 0.5, 0.5, 0.8
    method = objective(divergence="score_distance", low=t, high=t + 1e-4)
    student = Affine(0.0, g)
    networks: dict[str, nn.Module] = {"student": student, "teacher": Gaussian(0.0, sd), "fake": Gaussian(0.0, g)}
    images = torch.zeros(200_000, 1, 1, 2)
    losses = method.losses(networks, {}, Batch(0, 10, images[:, :, :, :]), generator(0))
    # The loss is a mean over samples and over the two pixels.
    got = 2 * float(torch.autograd.grad(losses["student"], student.sd)[0])

    def gain(spread: float) -> float:
        return (1 - t) * spread**2 / ((1 - t) ** 2 * spread**2 + t**2)

    h = 1e-5
    slope = (gain(g + h) - gain(g - h)) / (2 * h)
    mean_length = np.sqrt(np.pi / 2) * np.sqrt((1 - t) ** 2 * g**2 + t**2)  # of x_t, normal in two dimensions
    assert got == pytest.approx(np.sign(gain(g) - gain(sd)) * slope * mean_length, rel=0.03)


@pytest.mark.parametrize("divergence", ["kl", "fisher", "score_distance"])
def test_a_student_gets_the_teachers_distribution_with_a_fake_network_that_is_trained(divergence: str) -> None:
    data = 0.3 + 0.5 * torch.randn(512, 1, 2, 2, generator=generator(0))
    student = Affine(-0.2, 1.0)
    method = objective(divergence=divergence, fake_updates=2, fake_learning_rate=0.04, head_start=10)
    trainer = Trainer(
        method,
        TrainingSet(data),
        student=student,
        frozen={"teacher": Gaussian(0.3, 0.5)},
        settings=Training(steps=400, batch=256, learning_rate=0.02, warmup=1, ema=0.9),
        seed=0,
        accelerator=accelerator("fp32"),
    )
    for step in range(400):
        trainer.step(step)
    average = trainer.averages["student"]
    assert float(average.mean) == pytest.approx(0.3, abs=0.04)
    assert abs(float(average.sd)) == pytest.approx(0.5, abs=0.06)


def means(figures: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in figures.items() if bool(value.isfinite())}


def test_a_fake_network_that_lags_is_noticed() -> None:
    batch = make_batch(step=9)
    networks: dict[str, nn.Module] = {"student": Affine(0.3, 0.7), "teacher": Gaussian(0.0, 1.0)}
    lags = []
    for fake in (Gaussian(0.3, 0.7), Gaussian(-2.0, 0.2)):
        losses = objective().losses({**networks, "fake": fake}, {}, batch, generator(1))
        lags.append([text for text in objective().warnings(means(losses)) if text.startswith("the fake network lags:")])
    assert [len(faults) for faults in lags] == [0, 1]
    without = objective().losses({**networks, "fake": Gaussian(-2.0, 0.2)}, {}, make_batch(step=3), generator(1))
    assert "teacher" not in without


def test_pairs_are_needed_for_the_regression_alone() -> None:
    assert objective().needs == {"real_images", "teacher"}
    assert objective(regression_weight=0.25).needs == {"real_images", "teacher", "pairs"}
    batch = make_batch()
    networks: dict[str, nn.Module] = {"student": Field(0.3), "teacher": Field(0.25), "fake": Field(0.4)}
    plain, both = (
        objective(regression_weight=weight, distance="l2").losses(copy.copy(networks), {}, batch, generator(7))
        for weight in (0.0, 0.5)
    )
    noise, images = f64(batch.noise), f64(batch.images)
    errors = [noise[i] - mean_velocity(0.3, noise[i], i % 3) - images[i] for i in range(6)]
    added = 0.5 * np.mean(np.square(errors))
    assert both["student"].item() - plain["student"].item() == pytest.approx(added, rel=1e-4)


def test_times_must_go_upwards() -> None:
    with pytest.raises(ValueError, match=r"low = 0\.9 is not below high = 0\.2"):
        objective(low=0.9, high=0.2)
