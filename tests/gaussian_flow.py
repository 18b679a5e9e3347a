"""A flow whose every map is known: images of independent pixels N(0, s^2), so that x_r = x_t sd(r) / sd(t)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.networks import TrainedNetwork
from edgegen.training.objective import Objective

SHAPE = (256, 1, 2, 2)


class GaussianVelocity(nn.Module):
    """v(x, t) = x (t - (1 - t) s^2) / ((1 - t)^2 s^2 + t^2)."""

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(s))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        t, variance = t[:, None, None, None], self.s**2
        return x * (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)


class Scale(nn.Module):
    """u(x, t, r) = c(t, r) x with a small network c: it holds every mean velocity of a Gaussian flow."""

    second_time = True

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c = nn.Sequential(nn.Linear(2, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None, r: Tensor | None = None) -> Tensor:
        return self.c(torch.stack([t, t if r is None else r], dim=1))[:, :, None, None] * x


def trained_scale(method: str, s: float, *, steps: int, **keys: object) -> tuple[Scale, Mapping[str, float]]:
    """The network that a method learns from images N(0, s^2), or from pairs or a teacher of that flow; last figures."""
    objective: Objective = load("objective", method)(**keys)
    student, teacher = Scale(), GaussianVelocity(s).requires_grad_(False)
    trained = {"student": TrainedNetwork(student), **objective.networks(student, teacher)}
    networks = {name: part.network.requires_grad_(True) for name, part in trained.items()}
    optimizers = {name: torch.optim.Adam(network.parameters()) for name, network in networks.items()}
    values: Mapping[str, Tensor] = {}
    for step in range(steps):
        noise = torch.randn(SHAPE, generator=generator(1, step))
        images = s * (noise if "pairs" in objective.needs else torch.randn(SHAPE, generator=generator(2, step)))
        batch = Batch(step, steps, images, None, noise, due=frozenset(networks))
        values = objective.losses({"teacher": teacher, **networks}, networks, batch, generator(3, step))
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            values[name].backward(inputs=list(networks[name].parameters()), retain_graph=False)
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
            optimizer.step()
    return student, {name: value.item() for name, value in values.items()}


def coefficient(student: Scale, t: float, r: float) -> float:
    """c(t, r) of u(x, t, r) = c x."""
    with torch.no_grad():
        return student.c(torch.tensor([[float(t), float(r)]])).item()


def known(s: float, t: float, r: float) -> float:
    """The same of the flow itself: (1 - sd(r) / sd(t)) / (t - r)."""
    sd = {time: ((1 - time) ** 2 * s**2 + time**2) ** 0.5 for time in (t, r)}
    return (1 - sd[r] / sd[t]) / (t - r)
