"""Critics: small trained networks that tell real images from generated ones, both with noise mixed in (x_t).

`FeatureHeads` see what the frozen teacher's way down makes of x_t, `ImageCritic` sees x_t itself and needs no teacher.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegen.errors import TrainingError

SLOPE = 0.2  # of leaky ReLU below zero, as in StyleGAN's critics (arXiv:1812.04948)
NEAREST = 3  # k of the recall, as in arXiv:1904.06991


def feature_teacher(teacher: nn.Module | None) -> Any:
    """The teacher whose layers are features. Raises TrainingError for a network whose layers are not known."""
    if hasattr(teacher, "encode"):
        return teacher
    raise TrainingError(
        f"features of a teacher are known of an EdgeUNet, and this one is a {type(teacher).__name__}: "
        "give the method what needs no teacher (critic = 'small', features = 'pixels')"
    )


def features(teacher: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
    """Feature maps (batch, width, rows, columns) of each resolution on the way down, of images x_t at times t."""
    maps: list[Tensor] = feature_teacher(teacher).encode(x, t, labels)
    return maps


class FeatureHeads(nn.Module):
    """A head for each feature map: 3x3 and 1x1 convolution, mean over the pixels, a logit: (batch, heads)."""

    def __init__(self, widths: Sequence[int], *, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, width, 3, padding=1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(width, width, 1),
                nn.LeakyReLU(SLOPE),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(width, 1),
            )
            for features in widths
        )

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat([head(h) for head, h in zip(self.heads, maps, strict=True)], dim=1)


class ImageCritic(nn.Module):
    """Convolutions of strides 1, 2, 2, mean over the pixels, a logit that depends on the class: (batch, 1).

    The time is one more channel; the class enters by a product with the features (arXiv:1802.05637, projection).
    """

    def __init__(self, channels: int, classes: int, *, width: int) -> None:
        super().__init__()
        widths = (channels + 1, width, 2 * width, 2 * width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=stride, padding=1)
            for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        )
        self.last = nn.Linear(2 * width, 1)
        self.classes = nn.Embedding(classes, 2 * width) if classes else None

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        h = torch.cat([x, t[:, None, None, None].expand_as(x[:, :1])], dim=1)
        for convolution in self.convolutions:
            h = F.leaky_relu(convolution(h), SLOPE)
        h = h.mean(dim=(2, 3))
        logit: Tensor = self.last(h)
        if self.classes is not None:
            logit = logit + (self.classes(labels) * h).sum(dim=1, keepdim=True) / h.shape[1] ** 0.5
        return logit


def recall(real: Tensor, fake: Tensor) -> Tensor:
    """The share of the rows of `real` (n, width) that lie as near to a row of `fake` as its third neighbour does.

    NaN where there are too few rows for that. Of a batch it is a rough figure: it depends on the number of rows.
    """
    if len(fake) <= NEAREST:
        return real.new_full((), torch.nan)
    radii = torch.cdist(fake, fake).kthvalue(NEAREST + 1, dim=1).values  # the first neighbour is the row itself
    return (torch.cdist(real, fake) <= radii).any(dim=1).float().mean()
