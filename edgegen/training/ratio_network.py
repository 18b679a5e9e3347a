"""A classifier of real and generated images with noise: its logit is the log of the ratio of their densities.

Of x_t from real images with probability 1/2, else from generated ones, the best logit is log p_t(x_t) / q_t(x_t)
(arXiv:2502.08005; the density-ratio trick of classification).
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegen.flow.condition import enlarged
from edgegen.flow.path import ImageFacts, image_facts
from edgegen.training.critics import feature_teacher

Encoder = Literal["teacher", "small"]
HEAD_WIDTH = 64
TIME_FREQUENCIES = 16


class RatioNetwork(nn.Module):
    """D(x_t, t, c): the sum of a logit from each of an encoder's feature maps; it starts at zero.

    `encoder.encode(x, t, condition)` gives feature maps (batch, width, rows, columns), of these widths.
    """

    def __init__(self, encoder: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, nn.ModuleList(_Head(width) for width in widths)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Images (batch, channels, height, width) with noise, times t (batch,), conditions -> logits (batch,)."""
        features = self.encoder.encode(x, t, condition)  # type: ignore[operator]
        logits = [head(h) for head, h in zip(self.heads, features, strict=True)]
        return torch.stack(logits).sum(dim=0)


class _Head(nn.Module):
    """Feature map -> logits (batch,): a convolution, the mean over the pixels, a linear layer of zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, HEAD_WIDTH, 3, padding=1)
        self.last = nn.Linear(HEAD_WIDTH, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, h: Tensor) -> Tensor:
        h = F.silu(self.convolution(F.silu(h)))
        logits: Tensor = self.last(h.mean(dim=(2, 3)))
        return logits[:, 0]


def ratio_network(encoder: Encoder, student: nn.Module, teacher: nn.Module | None, *, width: int) -> RatioNetwork:
    """On the teacher's way down, from its weights, or on a small encoder of its own for the student's images.

    Raises TrainingError for a teacher that cannot give its way down.
    """
    if encoder == "small":
        own = ImageEncoder(image_facts(student), width=width)
        return RatioNetwork(own, own.widths)
    known = feature_teacher(teacher)
    return RatioNetwork(known.encoder(), known.config.channels)


class ImageEncoder(nn.Module):
    """Three convolutions with strides 1, 2, 2; time and class are added to each.

    An image as the condition stands beside the images. Without norms: those hide from it how bright an image is.
    """

    def __init__(self, facts: ImageFacts, *, width: int) -> None:
        super().__init__()
        self.upscale = facts.upscale
        channels = facts.channels * (1 if facts.upscale is None else 2)
        self.widths = widths = (width, 2 * width, 2 * width)
        self.config = {**asdict(facts), "width": width}
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=stride, padding=1)
            for before, after, stride in zip((channels, *widths), widths, (1, 2, 2), strict=False)
        )
        self.time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(facts.classes, width) if facts.classes else None
        self.shifts = nn.ModuleList(nn.Linear(width, after) for after in widths)

    def encode(self, x: Tensor, t: Tensor, condition: Tensor | None) -> list[Tensor]:
        if self.upscale is not None:
            assert condition is not None, "images of so many channels"
            x = torch.cat([x, enlarged(condition, self.upscale)], dim=1)
        x = x[:, :, None] if x.ndim == 3 else x  # a signal is an image of one row
        angle = t[:, None].float() * torch.pi * torch.arange(1, TIME_FREQUENCIES + 1, device=t.device)
        hidden = self.time(torch.cat([angle.cos(), angle.sin()], dim=1))
        if self.classes is not None:
            hidden = hidden + self.classes(condition)
        features: list[Tensor] = []
        for convolution, shift in zip(self.convolutions, self.shifts, strict=True):
            x = F.silu(convolution(x) + shift(F.silu(hidden))[:, :, None, None])
            features.append(x)
        return features


def ratio_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Binary cross entropy, the mean over the real and the generated images; ln 2 where nothing tells them apart."""
    return 0.5 * (F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean())


def accuracy(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """The share that is told right: 0.5 where nothing tells them apart."""
    return 0.5 * ((logits_real > 0).float().mean() + (logits_fake < 0).float().mean())
