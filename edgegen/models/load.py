"""Generator folders: of ours or of diffusers, read as the velocity network that they hold, and written."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edgegen.errors import DataError
from edgegen.models import class_partition, own_velocity
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.generator import CONFIG, LATENTS, SPACE, WEIGHTS, Loaded, load_ours
from edgegen.models.generator import save as save_ours
from edgegen.support.storage import read_json
from edgegen.types import Signature


def load(folder: Path) -> Loaded:
    """Reads our own folder, or a diffusers UNet2DModel folder (alone or in a pipeline).

    Args:
        folder: with config.json and diffusion_pytorch_model.safetensors, or with model_index.json.

    Returns:
        The velocity network `net` in evaluation mode, its `signature`, and `about`, what edgegen.json says of it.

    Raises:
        DataError: there is no such folder, or it holds something else or damaged weights.
    """
    loaded = _load(folder)
    return replace(loaded, signature=of_latents(loaded.signature)) if loaded.about.get(SPACE) == LATENTS else loaded


def _load(folder: Path) -> Loaded:
    if not folder.is_dir():
        raise DataError(f"no generator folder {folder}: it should hold {CONFIG} and {WEIGHTS}")
    pipeline = folder / "model_index.json"
    config_path = folder / "unet" / CONFIG if pipeline.exists() else folder / CONFIG
    if not config_path.exists():
        files = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise DataError(f"{folder}: no {CONFIG}; found {files}. A generator folder holds {CONFIG} and {WEIGHTS}")
    config = read_json(config_path)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind == "EdgeUNet":
        return load_ours(folder, config)
    if kind == "UNet2DModel":
        from edgegen.models.diffusers.unet2d import load_unet2d

        return load_unet2d(folder)
    if kind == own_velocity.KIND:
        return own_velocity.load(folder, config)
    if kind == class_partition.KIND:
        return class_partition.load(folder, config)
    known = f"EdgeUNet, UNet2DModel, {own_velocity.KIND}, {class_partition.KIND}"
    raise DataError(f"{config_path}: _class_name is {kind!r}; there are: {known}")


def of_latents(signature: Signature) -> Signature:
    """The same signature, of what a decoder makes images of."""
    return replace(signature, outputs=(replace(signature.outputs[0], role="latent", low=None, high=None),))


def save(network: nn.Module, folder: Path, *, about: Mapping[str, Any]) -> None:
    """Writes the folder of a student of any kind, which `load` reads. `about` says what it is: role, lineage."""
    if isinstance(network, EdgeUNet):
        settings = {key: value for key, value in network.config.to_dict().items() if key != "_class_name"}
        save_ours(network, folder, about={**about, "config": settings})
    elif isinstance(network, class_partition.ClassPartition):
        class_partition.save(network, folder, about=about)
    elif isinstance(network, own_velocity.OwnVelocity):
        own_velocity.save(network, folder, about=about)
    else:
        from edgegen.models.diffusers.unet2d import save_unet2d

        save_unet2d(network, folder, about=about)
