"""FID's features: of the Inception network that papers use, by torch-fidelity, from a file of weights on this machine.

Nothing is downloaded: torch-fidelity would fetch the file by itself, so it is only ever given one, and only one whose
content is the published one (SHA-256 below; the file is a pickle, which its hash makes harmless).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.metrics.feature_space import as_rgb
from edgegen.support.extras import require
from edgegen.support.pixels import HALF, as_shown
from edgegen.support.storage import sha256_of

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NAME, LAYER = "inception-v3-compat", "2048"  # torch-fidelity's names of the network and of what FID compares
BATCH = 64  # images at once: they are enlarged to 299 x 299


@dataclass(frozen=True)
class Inception:
    """torch-fidelity's FeatureExtractorInceptionV3 as a FeatureSpace; made by `load_inception`."""

    network: nn.Module
    name: str = f"{NAME},sha256:{SHA256[:8]}"

    def features(self, images: Tensor) -> NDArray[np.float32]:
        """float images (n, channels, height, width) in [-1, 1] -> (n, 2048); gray ones are shown in three channels."""
        device = next(self.network.parameters()).device
        pixels = ((as_shown(as_rgb(images.float())) + 1) * HALF).round().to(torch.uint8)
        with torch.no_grad():
            parts = [self.network(part.to(device))[0] for part in torch.split(pixels, BATCH)]
        return torch.cat(parts).cpu().numpy()


def check_inception(path: Path) -> None:
    """Raises DataError where the file is missing or is not the published one."""
    get = f"get {URL} and name the file in evaluate.inception"
    if not path.is_file():
        raise DataError(f"evaluate.inception: no file {path}; nothing is downloaded here: {get}")
    digest = sha256_of(path)
    if digest != SHA256:
        raise DataError(
            f"evaluate.inception: {path} is not the file of weights that FID is measured with: its SHA-256 is "
            f"{digest[:16]}..., needed {SHA256[:16]}...; {get}"
        )


def load_inception(path: Path, *, device: torch.device) -> Inception:
    """From the published file of weights. Raises DataError (`check_inception`) and MissingExtraError."""
    require("fid", purpose="FID")
    check_inception(path)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as e:  # of torchvision, which it imports and whose build must fit PyTorch's
        raise DataError(f"evaluate.inception: torch-fidelity cannot be imported here: {type(e).__name__}: {e}") from e
    network = FeatureExtractorInceptionV3(NAME, [LAYER], feature_extractor_weights_path=str(path))
    return Inception(network.to(device).eval())
