"""A folder with a diffusers AutoencoderKL or AutoencoderTiny: images to latents and back, and its copy in a run.

The latents are scaled as diffusers' pipelines scale them: z = (m - shift_factor) scaling_factor for the encoder's m,
which the decoder of edgegen.models.diffusers.decoders undoes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.diffusers import decoders
from edgegen.models.diffusers.families import FAMILIES, DecoderFamily, NetworkFolder, load_network
from edgegen.models.diffusers.weights import CONFIG, DIFFUSERS_STEM, find_weights, read_config
from edgegen.support.storage import save_tensors, write_json

KINDS = tuple(name for name, family in FAMILIES.items() if isinstance(family, DecoderFamily))


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """`network` is diffusers' own; `decoder` takes latents scaled by the config."""

    network: nn.Module
    config: Mapping[str, Any]
    decoder: decoders.Decoder

    @property
    def has_channel_statistics(self) -> bool:
        """Whether its config has a mean for each channel, which takes the place of shift_factor."""
        return bool(self.config.get("latents_mean") and self.config.get("latents_std"))

    def encode(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) in [-1, 1] -> the modes of their latents, scaled by the config."""
        network: Any = self.network
        encoded = network.encode(images)
        mode: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return (mode - self.decoder.shift) / self.decoder.gain

    def save(self, folder: Path, *, deviation: float, mean: float) -> None:
        """The folder of the same autoencoder whose config divides its latents by `deviation`, from `mean` on."""
        config = {key: value for key, value in self.config.items() if key != "_name_or_path"}
        settings: Any = self.network.config
        scale = float(settings.scaling_factor)
        shift = float(settings.shift_factor or 0.0)
        config |= {"scaling_factor": scale / deviation}
        if not self.has_channel_statistics:
            config |= {"shift_factor": shift + mean / scale}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, config)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        save_tensors(folder / f"{DIFFUSERS_STEM}.safetensors", weights)


def check_autoencoder(folder: Path) -> dict[str, Any]:
    """Its config. Raises DataError, before any work, where there is no such folder or it holds something else."""
    if not folder.is_dir():
        raise DataError(f"data.autoencoder: no folder {folder}; give one of diffusers' {' or '.join(KINDS)}")
    if (folder / "model_index.json").is_file():
        raise DataError(f"data.autoencoder: {folder} is a whole pipeline; give its part, such as {folder / 'vae'}")
    if not (folder / CONFIG).is_file():
        raise DataError(f"data.autoencoder: {folder} has no {CONFIG}; give a folder of {' or '.join(KINDS)}")
    config = read_config(folder)
    if config.get("_class_name") not in KINDS:
        raise DataError(
            f"data.autoencoder: {folder} holds {config.get('_class_name')!r}; there are: {', '.join(KINDS)}"
        )
    find_weights(folder, DIFFUSERS_STEM)
    return config


def load_autoencoder(folder: Path) -> Autoencoder:
    """From a folder, in float32 and evaluation mode. Raises DataError and MissingExtraError."""
    kind = str(check_autoencoder(folder)["_class_name"])
    network, _ = load_network(NetworkFolder(folder, "autoencoder", "diffusers folder", (folder,), None), kind)
    family = FAMILIES[kind]
    assert isinstance(family, DecoderFamily)
    network.eval().requires_grad_(False)
    decoder = family.decoder(network)
    assert isinstance(decoder, decoders.Decoder)
    return Autoencoder(network, read_config(folder), decoder.eval())


def latent_shape(autoencoder: Autoencoder, image_shape: list[int]) -> list[int]:
    """(channels, height, width) of the latents of such images, of a try with one.

    Raises DataError where the autoencoder is for other images, or gives back others.
    """
    channels, height, width = image_shape
    config: Any = autoencoder.network.config
    if config.in_channels != channels or config.out_channels != channels:
        raise DataError(
            f"data.autoencoder: it is for images of {config.in_channels} channels, the data have {channels}"
        )
    factor = decoders.enlargement(config)
    if height % factor or width % factor:
        raise DataError(
            f"data.autoencoder: it makes images {factor} times smaller, and {height}x{width} pixels cannot be divided "
            f"by {factor}: give images whose height and width can"
        )
    image = torch.zeros(1, *image_shape)
    try:
        with torch.no_grad():
            latent = autoencoder.encode(image)
            back = tuple(autoencoder.decoder(latent).shape)
    except RuntimeError as e:
        raise DataError(f"data.autoencoder: fails on an image of {image_shape}: {' '.join(str(e).split())}") from e
    if back != tuple(image.shape):
        raise DataError(f"data.autoencoder: makes images of {list(back[1:])} out of {image_shape}")
    return list(latent.shape[1:])
