"""Distances between images, one value per sample: what distillation minimises."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

HUBER_C = 0.00054  # pseudo-Huber's c = 0.00054 sqrt(d): improved consistency training, arXiv:2310.14189, section 3.3

Distance = Literal["l2", "pseudo_huber"]  # the names of DISTANCES


def l2(a: "Tensor", b: "Tensor") -> "Tensor":
    """Mean squared error over the pixels: (batch,)."""
    return (a - b).square().flatten(1).mean(dim=1)


def pseudo_huber(a: "Tensor", b: "Tensor") -> "Tensor":
    """sqrt(||a - b||^2 + c^2) - c, over sqrt(d) so that its scale does not depend on the resolution: (batch,)."""
    d = a[0].numel()
    c = HUBER_C * math.sqrt(d)
    return ((a - b).square().flatten(1).sum(dim=1) + c * c).sqrt().sub(c) / math.sqrt(d)


DISTANCES: "Mapping[Distance, Callable[[Tensor, Tensor], Tensor]]" = {"l2": l2, "pseudo_huber": pseudo_huber}
