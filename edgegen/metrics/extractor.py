"""The features that images are compared in: of a small network trained here, on the same data, with no download."""

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.metrics.feature_space import FeatureSpace
from edgegen.support.pixels import as_shown

CLASSIFIER, ROTATIONS = "cnn-v1", "rot-v1"  # network and task; a change of either is a new version
FEATURES = 64
WIDTHS = (32, 64)
BATCH = 512


class FeatureExtractor(FeatureSpace, Protocol):
    """A feature space that was trained: `accuracy` says how good the features can be."""

    @property
    def accuracy(self) -> float: ...


class SmallCNN(nn.Module):
    """Twice (3x3 convolution, ReLU) x 2 and a halving, the mean of each quarter, 64 ReLU features, the classes.

    For images of 4x4 pixels and more, any shape; forward: (batch, channels, height, width) -> (batch, classes).
    """

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        first, second = WIDTHS
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, first, 3, padding=1)
        self.conv3 = nn.Conv2d(first, second, 3, padding=1)
        self.conv4 = nn.Conv2d(second, second, 3, padding=1)
        self.penultimate = nn.Linear(4 * second, FEATURES)
        self.head = nn.Linear(FEATURES, classes)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The layers of convolutions (batch, features, height, width), not negative; the last two of half the size."""
        first = F.relu(self.conv1(images))
        second = F.relu(self.conv2(first))
        third = F.relu(self.conv3(F.max_pool2d(second, 2)))
        return first, second, third, F.relu(self.conv4(third))

    def features(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, 64), not negative."""
        return F.relu(self.penultimate(_quarters(F.max_pool2d(self.maps(images)[-1], 2))))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images))
        return out


def _quarters(h: Tensor) -> Tensor:
    """adaptive_avg_pool2d(h, 2), flattened; written out because its gradient on CUDA is not deterministic."""
    rows, columns = (h.shape[2] + 1) // 2, (h.shape[3] + 1) // 2
    top, bottom = h[:, :, :rows], h[:, :, h.shape[2] - rows :]
    parts = [part[..., side] for part in (top, bottom) for side in (slice(columns), slice(h.shape[3] - columns, None))]
    return torch.stack([part.mean(dim=(2, 3)) for part in parts], dim=2).flatten(1)


def pretext_labels(images: Tensor) -> tuple[Tensor, Tensor]:
    """For images without labels: all four quarter turns and which it was (RotNet, arXiv:1803.07728).

    (n, channels, height, width) -> (4 n, channels, size, size), labels (4 n,) in 0..3. Of images that are not square,
    both squares at the ends of the longer side are turned (8 n of them): the features are of whole images all the same.
    """
    size = min(images.shape[2:])
    if images.shape[2] != images.shape[3]:
        images = torch.cat([images[:, :, :size, :size], images[:, :, -size:, -size:]])
    turned = torch.cat([torch.rot90(images, turns, dims=(2, 3)) for turns in range(4)])
    return turned, torch.arange(4, device=images.device).repeat_interleave(len(images))


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose class the network predicts, in 0..1."""
    return float((_logits(network, images).argmax(dim=1) == labels.cpu()).double().mean())


def cross_entropy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Of the images and their classes, the mean."""
    return float(F.cross_entropy(_logits(network, images).double(), labels.cpu()))


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    device = next(network.parameters()).device
    with torch.no_grad():
        return torch.cat([network(part.to(device)).cpu() for part in torch.split(images, BATCH)])


@dataclass(frozen=True)
class LocalExtractor:
    """A trained SmallCNN as a FeatureExtractor; made by `local_extractor`."""

    network: SmallCNN
    accuracy: float
    name: str

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """float images (n, channels, height, width) in [-1, 1] -> float64 (n, 64).

        The images are rounded to 8 bits first, as they are shown. Raises DataError on values that are not finite.
        """
        if not bool(torch.isfinite(images).all()):
            raise DataError("the generated images hold values that are not finite, so they have no features to compare")
        device = next(self.network.parameters()).device
        with torch.no_grad():
            parts = [self.network.features(as_shown(part.to(device).float())) for part in torch.split(images, BATCH)]
        return torch.cat(parts).cpu().double().numpy()

    def classes(self, features: NDArray[Any]) -> NDArray[np.int64]:
        """`features` (n, 64) -> the class that the network takes each image for (n,)."""
        head = self.network.head
        with torch.no_grad():
            values = torch.from_numpy(np.asarray(features, np.float32)).to(head.weight.device)
            classes: NDArray[np.int64] = head(values).argmax(dim=1).cpu().numpy()
        return classes

    @property
    def knows_classes(self) -> bool:
        """Whether `classes` are those of the data, and not quarter turns."""
        return not self.name.startswith(ROTATIONS)


def local_extractor(network: SmallCNN, *, task: str, source: str, accuracy: float) -> LocalExtractor:
    """`task` is "cnn-v1" or "rot-v1", `source` the name of the data; the weights' hash makes the name exact."""
    network = network.eval().requires_grad_(False)
    return LocalExtractor(network, accuracy, f"{task},{source},sha256:{_weights_hash(network)[:8]}")


def fd_name(extractor: FeatureExtractor) -> str:
    """The name of the Frechet distance in these features; never "FID", which is that in Inception's."""
    return f"fd_local[{extractor.name}]"


def _weights_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    weights: dict[str, Any] = network.state_dict()
    for name in sorted(weights):
        value = weights[name].detach().cpu().float().contiguous().numpy()
        digest.update(f"{name}{value.shape}".encode())
        digest.update(value.astype("<f4").tobytes())
    return digest.hexdigest()
