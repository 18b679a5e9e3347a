"""A classifier of real and generated images with noise: its logit is the log of the ratio of their densities.

Of x_t from real images with probability 1/2, else from generated ones, the best logit is log p_t(x_t) / q_t(x_t)
(arXiv:2502.08005; the density-ratio trick of classification).
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegen.errors import UsageError

Encoder = Literal["teacher", "small"]
TIME_FREQUENCIES = 16
GROUPS = 8  # of a GroupNorm, at most, as in EdgeUNet


class RatioNetwork(nn.Module):
    """D(x_t, t, class): an encoder's features, their mean over the pixels, one linear layer, which starts at zero.

    `encoder(x, t, labels)` gives features (batch, width, rows, columns).
    """

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.last = encoder, nn.Linear(width, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Images (batch, channels, height, width) with noise, times t (batch,), classes -> logits (batch,)."""
        logits: Tensor = self.last(self.encoder(x, t, labels).mean(dim=(2, 3)))
        return logits[:, 0]


def ratio_network(encoder: Encoder, student: nn.Module, teacher: nn.Module | None, *, width: int) -> RatioNetwork:
    """On the teacher's way down, from its weights, or on a small encoder of its own for the student's images.

    Raises UsageError for a teacher that cannot give its way down.
    """
    if encoder == "small":
        config: Any = student.config
        own = ImageEncoder(config.in_channels, config.num_classes, width=width)
        return RatioNetwork(own, own.width)
    if not hasattr(teacher, "encoder"):
        raise UsageError(
            f"encoder = 'teacher': of a {type(teacher).__name__} the way down cannot be trained alone, only of an "
            "EdgeUNet; give encoder = 'small', a network of its own"
        )
    assert teacher is not None
    way_down: nn.Module = teacher.encoder()  # type: ignore[operator]
    return RatioNetwork(way_down, teacher.config.channels[-1])  # type: ignore[union-attr,index,arg-type]


class ImageEncoder(nn.Module):
    """Three convolutions with strides 1, 2, 2; time and class are added before each of the norms."""

    def __init__(self, channels: int, classes: int, *, width: int) -> None:
        super().__init__()
        self.width = 2 * width
        widths = (width, self.width, self.width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=stride, padding=1)
            for before, after, stride in zip((channels, *widths), widths, (1, 2, 2), strict=False)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_groups(after), after) for after in widths)
        self.time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(classes, width) if classes else None
        self.shifts = nn.ModuleList(nn.Linear(width, after) for after in widths)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        angle = t[:, None].float() * torch.pi * torch.arange(1, TIME_FREQUENCIES + 1, device=t.device)
        hidden = self.time(torch.cat([angle.cos(), angle.sin()], dim=1))
        if self.classes is not None:
            hidden = hidden + self.classes(labels)
        for convolution, norm, shift in zip(self.convolutions, self.norms, self.shifts, strict=True):
            x = F.silu(norm(convolution(x) + shift(F.silu(hidden))[:, :, None, None]))
        return x


def ratio_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Binary cross entropy, the mean over the real and the generated images; ln 2 where nothing tells them apart."""
    return 0.5 * (F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean())


def accuracy(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """The share that is told right: 0.5 where nothing tells them apart."""
    return 0.5 * ((logits_real > 0).float().mean() + (logits_fake < 0).float().mean())


def _groups(width: int) -> int:
    return next(groups for groups in range(min(GROUPS, width), 0, -1) if width % groups == 0)
