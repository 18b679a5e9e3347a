"""What critics see with: the frozen teacher's way down, and the heads that tell real images from generated ones there.

Both kinds of images have noise mixed in (x_t). A critic without a teacher is edgegen.training.ratio_network's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.errors import TrainingError
from edgegen.flow.guidance import unguided
from edgegen.training.objective import WITHOUT_FEATURES

SLOPE = 0.2  # of leaky ReLU below zero, as in StyleGAN's critics (arXiv:1812.04948)
NEAREST = 3  # k of the recall, as in arXiv:1904.06991


def feature_teacher(teacher: nn.Module | None) -> Any:
    """The teacher whose layers are features. Raises TrainingError for a network whose layers are not known.

    A recipe is refused for it before any training: edgegen.pipeline.methods.check_teacher.
    """
    if teacher is not None and hasattr(unguided(teacher), "encode"):
        return unguided(teacher)  # guidance is of velocities: features are the network's own
    raise TrainingError(
        f"features of a teacher are known of an EdgeUNet, and this one is a {type(teacher).__name__}: "
        f"{WITHOUT_FEATURES}"
    )


def features(teacher: nn.Module, x: Tensor, t: Tensor, condition: Tensor | None) -> list[Tensor]:
    """Feature maps (batch, width, rows, columns) of each resolution on the way down, of images x_t at times t."""
    maps: list[Tensor] = feature_teacher(teacher).encode(x, t, condition)
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


def recall(real: Tensor, fake: Tensor) -> Tensor:
    """The share of the rows of `real` (n, width) that lie as near to a row of `fake` as its third neighbour does.

    NaN where there are too few rows for that. Of a batch it is a rough figure: it depends on the number of rows.
    """
    if len(fake) <= NEAREST:
        return real.new_full((), torch.nan)
    radii = torch.cdist(fake, fake).kthvalue(NEAREST + 1, dim=1).values  # the first neighbour is the row itself
    return (torch.cdist(real, fake) <= radii).any(dim=1).float().mean()
