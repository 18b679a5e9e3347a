"""Distances between images, one value per sample: what distillation minimises."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, cast

from edgegen.training.objective import Need, Networks

if TYPE_CHECKING:
    from torch import Tensor

HUBER_C = 0.00054  # pseudo-Huber's c = 0.00054 sqrt(d): improved consistency training, arXiv:2310.14189, section 3.3
UNIT_EPS = 1e-10  # of the length of a feature vector that may be zero, as in LPIPS's code

Distance = Literal["l2", "pseudo_huber", "perceptual"]
DISTANCE_HELP = "between images: l2, pseudo_huber, or perceptual, which adds the distance in the extractor's features"


class FeatureNetwork(Protocol):
    """A frozen network of images, such as the classifier of the stage `extractor`."""

    def maps(self, images: "Tensor") -> "Sequence[Tensor]":
        """Its layers' outputs (batch, channels, height, width), of images (batch, channels, height, width)."""


def l2(a: "Tensor", b: "Tensor") -> "Tensor":
    """Mean squared error over the pixels: (batch,)."""
    return (a - b).square().flatten(1).mean(dim=1)


def pseudo_huber(a: "Tensor", b: "Tensor") -> "Tensor":
    """sqrt(||a - b||^2 + c^2) - c, over sqrt(d) so that its scale does not depend on the resolution: (batch,)."""
    d = a[0].numel()
    c = HUBER_C * math.sqrt(d)
    return ((a - b).square().flatten(1).sum(dim=1) + c * c).sqrt().sub(c) / math.sqrt(d)


def in_features(a: "Tensor", b: "Tensor", network: FeatureNetwork) -> "Tensor":
    """LPIPS with equal weights (arXiv:1801.03924, Eq. 1): (batch,).

    Of every layer, the squared distance of the feature vectors of length 1, its mean over the positions; then the sum.
    """
    import torch

    maps = [layer.float() for layer in network.maps(torch.cat([a, b]))]
    maps = [torch.nn.functional.normalize(layer, dim=1, eps=UNIT_EPS) for layer in maps]
    halves = (layer.chunk(2) for layer in maps)
    return torch.stack([(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in halves]).sum(dim=0)


PIXELS: "Mapping[Distance, Callable[[Tensor, Tensor], Tensor]]" = {
    "l2": l2,
    "pseudo_huber": pseudo_huber,
    "perceptual": pseudo_huber,  # feature vectors of length 1 do not see contrast
}


def distance_of(name: Distance, networks: Networks) -> "Callable[[Tensor, Tensor], Tensor]":
    """The distance between images (batch, channels, height, width) -> (batch,), with the networks that it needs."""
    pixels = PIXELS[name]
    if name != "perceptual":
        return pixels
    network = cast("FeatureNetwork", networks["features"])
    return lambda a, b: pixels(a, b) + in_features(a, b, network)


def needs_of(name: Distance) -> frozenset[Need]:
    """What a method with this distance needs for it."""
    return frozenset({"feature_network"}) if name == "perceptual" else frozenset()
