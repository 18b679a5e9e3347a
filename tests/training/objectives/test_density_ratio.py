"""Density ratio: its losses against their formulas, its logit against known scores, and its warnings."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, make_batch, mean_velocity
from torch import Tensor, nn

from edgegen.errors import TrainingError
from edgegen.flow.path import ImageFacts
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.ratio_network import ImageEncoder, RatioNetwork, ratio_loss, ratio_network
from edgegen.training.student_images import image_figures, image_warnings
from edgegen.training.trainer import Trainer

TINY = EdgeUNetConfig(sample_size=4, channels=(8, 16), blocks=1, num_classes=3, embedding=8)


def objective(**keys: Any) -> Any:
    return load("objective", "density_ratio")(**keys)


class LogRatio(nn.Module):
    """A made-up log p / q with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return self.weight * x.flatten(1).sum(dim=1) * t


@pytest.mark.parametrize("divergence", ["kl", "js", "non_saturating"])
def test_both_losses_are_those_of_the_formula(divergence: str) -> None:
    batch, rng = make_batch(), generator(7)
    z, e = (f64(torch.randn(batch.images.shape, generator=rng)) for _ in range(2))
    t = 0.1 + 0.8 * f64(torch.rand(6, generator=rng))
    images, labels = f64(batch.real.images), batch.real.condition.tolist()
    method = objective(
        divergence=divergence, low=0.1, high=0.9, weight_power=1.0, smoothness=3.0, regression_weight=0.5
    )
    networks = {"student": Field(0.3), "ratio": LogRatio()}
    got = method.losses(networks, {}, batch, generator(7))
    x = [z[i] - mean_velocity(0.3, z[i], labels[i]) for i in range(6)]

    def logit(image: np.ndarray, i: int) -> float:
        return float(0.5 * t[i] * np.sum((1 - t[i]) * image + t[i] * e[i]))

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    entropy = [-math.log(sigmoid(logit(images[i], i))) - math.log(1 - sigmoid(logit(x[i], i))) for i in range(6)]
    noise = 0.1 * f64(torch.randn(batch.images.shape, generator=rng))
    jumps = [(0.5 * t[i] * np.sum(noise[i])) ** 2 for i in range(6)]  # the same at real and generated images
    assert got["ratio"].item() == pytest.approx(np.mean(entropy) / 2 + 3 * np.mean(jumps), rel=1e-4)
    value = {
        "kl": lambda d: -d,
        "js": lambda d: math.log(1 - sigmoid(d)),
        "non_saturating": lambda d: -math.log(sigmoid(d)),
    }[divergence]
    expected = np.mean([t[i] / (1 - t[i]) * value(logit(x[i], i)) for i in range(6)])
    pairs = [
        f64(batch.noise[i]) - mean_velocity(0.3, f64(batch.noise[i]), i % 3) - f64(batch.images[i]) for i in range(6)
    ]
    c = 0.00054 * math.sqrt(16)  # pseudo-Huber's, arXiv:2310.14189
    regression = np.mean([(math.sqrt(np.sum(part**2) + c * c) - c) / 4 for part in pairs])
    assert got["regression"].item() == pytest.approx(regression, rel=1e-4)
    assert got["student"].item() == pytest.approx(expected + 0.5 * regression, rel=1e-4)
    got["student"].backward(inputs=list(networks["student"].parameters()))
    assert networks["ratio"].weight.grad is None


def test_the_logits_gradient_is_the_difference_of_the_scores_of_two_gaussians() -> None:
    """What replaces teacher score minus fake score: of N(0.4, 0.5^2) and N(-0.4, 0.8^2), after some training."""
    torch.manual_seed(0)
    network = RatioNetwork(ImageEncoder(ImageFacts(1, 0, None), width=16), (16, 32, 32))
    optimizer, rng = torch.optim.Adam(network.parameters(), lr=1e-2), generator(0)
    for step in range(200):
        z, e = (torch.randn(256, 1, 1, 2, generator=rng) for _ in range(2))
        t = 0.3 + 0.4 * torch.rand(256, generator=rng)
        s = t[:, None, None, None]
        real, generated = (0.4 + 0.5 * z), (-0.4 + 0.8 * z.flip(0))
        loss = ratio_loss(*(network((1 - s) * x + s * e, t, None) for x in (real, generated)))
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 200)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    t = torch.full((512,), 0.5)
    x = torch.randn(512, 1, 1, 2, generator=rng) * 0.6
    x.requires_grad_(True)
    (got,) = torch.autograd.grad(network(x, t, None).sum(), x)

    def score(mean: float, sd: float) -> Tensor:
        return -(x - 0.5 * mean) / (0.25 * sd**2 + 0.25)

    expected = (score(0.4, 0.5) - score(-0.4, 0.8)).detach()
    error = (got - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert float(error) < 0.25


def test_the_teachers_encoder_has_its_weights_and_features_and_tells_nothing_at_first() -> None:
    torch.manual_seed(0)
    teacher = EdgeUNet(TINY)
    for parameter in teacher.parameters():
        nn.init.normal_(parameter, std=0.2)
    network = ratio_network("teacher", teacher, teacher, width=8)
    x, t, labels = torch.randn(5, 1, 4, 4), torch.rand(5), torch.arange(5) % 3
    seen: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: seen.append(out)) for layer in teacher.attend_down]
    before = teacher(x, t, labels)
    for hook in hooks:
        hook.remove()
    features = network.encoder.encode(x, t, labels)
    assert [h.shape[1] for h in features] == [8, 16]
    for own, of_teacher in zip(features, seen, strict=True):
        torch.testing.assert_close(own, of_teacher)
    assert not network(x, t, labels).any()
    assert sum(p.numel() for p in network.encoder.parameters()) < sum(p.numel() for p in teacher.parameters())
    ratio_loss(network(x, t, labels), -network(x.flip(0), t, labels)).backward()
    torch.testing.assert_close(teacher(x, t, labels), before)


def test_every_weight_of_the_ratio_network_is_trained() -> None:
    """Processes that train together wait for a gradient of every weight."""
    for encoder in ("teacher", "small"):
        torch.manual_seed(0)
        teacher = EdgeUNet(TINY)
        network = ratio_network(encoder, teacher, teacher, width=8)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
        network(torch.randn(5, 1, 4, 4), torch.rand(5), torch.arange(5) % 3).sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_teacher_without_a_way_down_of_its_own_is_refused_with_the_way_out() -> None:
    with pytest.raises(TrainingError, match=r"known of an EdgeUNet, and this one is a Conv2d.*encoder = 'small'"):
        ratio_network("teacher", EdgeUNet(TINY), nn.Conv2d(1, 1, 1), width=8)
    assert objective(encoder="small", regression_weight=0).needs == {"real_images"}
    assert objective().needs == {"real_images", "pairs", "teacher", "teacher_features"}
    assert objective(encoder="small", distance="perceptual").needs == {"real_images", "pairs", "feature_network"}


class Affine(nn.Module):
    """One step is x = mean + sd z."""

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        self.mean, self.sd = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(sd))
        self.image_channels, self.num_classes = 1, 0

    def forward(self, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return z - (self.mean + self.sd * z)


def test_a_student_gets_the_datas_distribution_without_any_teacher() -> None:
    data = 0.3 + 0.5 * torch.randn(2048, 1, 2, 2, generator=generator(0))
    student = Affine(-0.3, 1.0)
    trainer = Trainer(
        objective(
            encoder="small",
            width=8,
            head_start=30,
            ratio_learning_rate=1e-2,
            smoothness=0.0,
            regression_weight=0.0,
            high=0.98,
        ),
        TrainingSet(data),
        student=student,
        frozen={},
        settings=Training(steps=250, batch=64, learning_rate=0.01, warmup=1, ema=0.95),
        seed=0,
        accelerator=accelerator("fp32"),
    )
    trainer.step(0)
    assert student.mean.item() == pytest.approx(-0.3)  # the ratio network has its head start
    for step in range(1, 250):
        trainer.step(step)
    average = trainer.averages["student"]
    assert float(average.mean) == pytest.approx(0.3, abs=0.1)
    assert abs(float(average.sd)) == pytest.approx(0.5, abs=0.15)


def test_missing_modes_and_pixels_out_of_range_are_noticed() -> None:
    rng = generator(0)
    real = torch.rand(64, 1, 4, 4, generator=rng) * 2 - 1
    same = torch.rand(64, 1, 4, 4, generator=rng) * 2 - 1
    figures = {name: float(value) for name, value in image_figures(same, real).items()}
    assert 0.35 < figures["coverage"] < 0.65
    assert figures["beyond_range"] == pytest.approx(0.0, abs=1e-3)
    assert image_warnings(figures) == []
    one_image = same[:1].expand(64, -1, -1, -1)
    missing = {name: float(value) for name, value in image_figures(one_image, real).items()}
    bright = {name: float(value) for name, value in image_figures(2 * same, real).items()}
    assert [text.partition(":")[0] for text in image_warnings(missing)] == [
        "the student leaves out kinds of images, or its images are noisy"
    ]
    assert "the student's images leave the data's range" in {text.partition(":")[0] for text in image_warnings(bright)}
    assert image_figures(same[:1], real[:1])["coverage"].isnan()


def test_a_ratio_network_that_is_always_right_is_told() -> None:
    assert objective().warnings({"accuracy": 0.8}) == []
    (fault,) = objective().warnings({"accuracy": 0.99})
    assert fault.startswith("the ratio network tells generated images nearly always: in 99%")
