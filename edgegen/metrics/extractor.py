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

# Network and task; a change of either is a new version
CLASSIFIER, ROTATIONS = "cnn-v1", "rot-v1"
SIGNAL_CLASSIFIER, TRANSFORMATIONS = "cnn1d-v1", "transform1d-v1"  # the same of signals
FEATURES = 64
WIDTHS = (32, 64)
BATCH = 512


class FeatureExtractor(FeatureSpace, Protocol):
    """A feature space that was trained: `accuracy` says how good the features can be."""

    @property
    def accuracy(self) -> float: ...


class SmallCNN(nn.Module):
    """Twice (3x3 convolution, ReLU) x 2 and a halving, the mean of each quarter, 64 ReLU features, the classes.

    For images of 4x4 pixels and more, any shape; forward: (batch, channels, height, width) -> (batch, classes). For a
    `signal` (batch, channels, length) of 16 values and more the kernels are 1x7 and the length becomes a quarter each
    time, so that a feature sees some 60 values: waves are longer than edges are wide.
    """

    def __init__(self, *, channels: int, classes: int, signal: bool = False) -> None:
        super().__init__()
        first, second = WIDTHS
        self.pool, self.quarters = ((1, 4), _quarters_of_length) if signal else ((2, 2), _quarters)

        def convolution(before: int, after: int) -> nn.Conv2d:
            return nn.Conv2d(before, after, (1, 7) if signal else 3, padding=(0, 3) if signal else 1)

        self.conv1 = convolution(channels, first)
        self.conv2 = convolution(first, first)
        self.conv3 = convolution(first, second)
        self.conv4 = convolution(second, second)
        self.penultimate = nn.Linear(4 * second, FEATURES)
        self.head = nn.Linear(FEATURES, classes)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The layers of convolutions (batch, features, height, width), not negative; the last two of half the size.

        Of signals the height is 1.
        """
        first = F.relu(self.conv1(images[:, :, None] if images.ndim == 3 else images))
        second = F.relu(self.conv2(first))
        third = F.relu(self.conv3(F.max_pool2d(second, self.pool)))
        return first, second, third, F.relu(self.conv4(third))

    def features(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) or signals (batch, channels, length) -> (batch, 64), not negative."""
        return F.relu(self.penultimate(self.quarters(F.max_pool2d(self.maps(images)[-1], self.pool))))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images))
        return out


def _quarters(h: Tensor) -> Tensor:
    """adaptive_avg_pool2d(h, 2), flattened; written out because its gradient on CUDA is not deterministic."""
    rows, columns = (h.shape[2] + 1) // 2, (h.shape[3] + 1) // 2
    top, bottom = h[:, :, :rows], h[:, :, h.shape[2] - rows :]
    parts = [part[..., side] for part in (top, bottom) for side in (slice(columns), slice(h.shape[3] - columns, None))]
    return torch.stack([part.mean(dim=(2, 3)) for part in parts], dim=2).flatten(1)


def _quarters_of_length(h: Tensor) -> Tensor:
    """adaptive_avg_pool2d(h, (1, 4)), flattened, likewise: of a signal, which is one row."""
    length = h.shape[3]
    ends = [(i * length // 4, -(-(i + 1) * length // 4)) for i in range(4)]
    return torch.stack([h[..., start:end].mean(dim=(2, 3)) for start, end in ends], dim=2).flatten(1)


def pretext_labels(images: Tensor) -> tuple[Tensor, Tensor]:
    """For images without labels: all four quarter turns and which it was (RotNet, arXiv:1803.07728).

    (n, channels, height, width) -> (4 n, channels, size, size), labels (4 n,) in 0..3. Of images that are not square,
    both squares at the ends of the longer side are turned (8 n of them): the features are of whole images all the same.
    Signals (n, channels, length) are left, negated, played backwards, or have their halves exchanged, as in
    "Self-supervised ECG Representation Learning" (Sarkar and Etemad 2020, arXiv:2002.03898).
    """
    if images.ndim == 3:
        return _transformed(images)
    size = min(images.shape[2:])
    if images.shape[2] != images.shape[3]:
        images = torch.cat([images[:, :, :size, :size], images[:, :, -size:, -size:]])
    turned = torch.cat([torch.rot90(images, turns, dims=(2, 3)) for turns in range(4)])
    return turned, torch.arange(4, device=images.device).repeat_interleave(len(images))


def _transformed(signals: Tensor) -> tuple[Tensor, Tensor]:
    exchanged = signals.roll(signals.shape[2] // 2, dims=2)
    transformed = torch.cat([signals, -signals, signals.flip(2), exchanged])
    return transformed, torch.arange(4, device=signals.device).repeat_interleave(len(signals))


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
        """float images (n, channels, height, width), or signals (n, channels, length), in [-1, 1] -> float64 (n, 64).

        Images are rounded to 8 bits first, as they are shown. Raises DataError on values that are not finite.
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
        """Whether `classes` are those of the data, and not quarter turns or what else was done to them."""
        return not self.name.startswith((ROTATIONS, TRANSFORMATIONS))


def local_extractor(network: SmallCNN, *, task: str, source: str, accuracy: float) -> LocalExtractor:
    """`task` is one of the four names above, such as "cnn-v1", `source` the name of the data.

    The weights' hash makes the name exact.
    """
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
