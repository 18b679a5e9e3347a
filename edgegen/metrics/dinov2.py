"""Features of DINOv2 (arXiv:2304.07193), which agree with people better than Inception's (arXiv:2306.04675).

The network comes from a folder of weights on this machine (config.json and model.safetensors, as transformers saves
them; the paper on metrics takes ViT-L/14). Nothing is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.metrics.feature_space import as_rgb
from edgegen.support.extras import require
from edgegen.support.pixels import as_shown
from edgegen.support.storage import read_json, sha256_of

FILES = ("config.json", "model.safetensors")
PIXELS = 224  # side of the images that the network is given, as in the paper on metrics
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, on the scale 0 to 1
BATCH = 64


@dataclass(frozen=True)
class Dinov2:
    """A Dinov2Model of transformers as a FeatureSpace; made by `load_dinov2`."""

    network: nn.Module
    name: str

    def features(self, images: Tensor) -> NDArray[np.float32]:
        """float images (n, channels, height, width) in [-1, 1] -> the class token after the last norm (n, width)."""
        device = next(self.network.parameters()).device
        with torch.no_grad():
            parts = [
                self.network(pixel_values=_prepared(part.to(device))).pooler_output.float()
                for part in torch.split(images, BATCH)
            ]
        return torch.cat(parts).cpu().numpy()


def _prepared(images: Tensor) -> Tensor:
    """As shown, enlarged or reduced to 224 x 224 by antialiased cubic interpolation, in ImageNet's colours."""
    shown = (as_shown(as_rgb(images.float())) + 1) / 2
    sized = F.interpolate(shown, size=(PIXELS, PIXELS), mode="bicubic", antialias=True).clamp(0, 1)
    mean, deviation = (sized.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (sized - mean) / deviation


def check_dinov2(folder: Path) -> None:
    """Raises DataError where the folder is missing, lacks a file, or holds another network."""
    where = "give the folder of a Dinov2Model that transformers saved, with " + " and ".join(FILES)
    if not folder.is_dir():
        raise DataError(f"evaluate.dinov2: no folder {folder}; nothing is downloaded here: {where}")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"evaluate.dinov2: {folder} has no {' and no '.join(missing)}; {where}")
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "dinov2":
        raise DataError(f"evaluate.dinov2: {folder} holds a network of the type {kind!r}; {where}")


def load_dinov2(folder: Path, *, device: torch.device) -> Dinov2:
    """From a local folder. Raises DataError (`check_dinov2`) and MissingExtraError."""
    require("dinov2", purpose="the DINOv2 distance")
    check_dinov2(folder)
    from transformers import Dinov2Model

    try:
        network, report = Dinov2Model.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as e:
        raise DataError(f"evaluate.dinov2: {folder} cannot be read: {type(e).__name__}: {e}") from e
    if report["missing_keys"]:
        raise DataError(f"evaluate.dinov2: {folder} lacks weights, such as {sorted(report['missing_keys'])[0]}")
    size = f"{network.config.num_hidden_layers} layers of {network.config.hidden_size}"
    digest = sha256_of(folder / FILES[1])
    return Dinov2(network.to(device).eval(), f"dinov2,{size},sha256:{digest[:8]}")
