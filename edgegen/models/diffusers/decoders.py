"""The decoders of diffusers' autoencoders: from a latent, as the denoiser gives it, to an image in [-1, 1]."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.sources.source import NamedInputs, batched, image_range
from edgegen.types import Signature, TensorSpec

TINY_LATENT = 64  # AutoencoderTiny's config holds no size; Stable Diffusion's latents of 512-pixel images have this


class Decoder(NamedInputs):
    """decoder(gain z + shift) for a latent z (batch, channels, height, width); encoder and quantizer are dropped.

    The denoiser's latents are scaled to deviation 1 (Rombach et al., arXiv:2112.10752, section D.1): this undoes it.
    """

    def __init__(self, decoder: nn.Module, *, gain: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("gain", gain.reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.reshape(1, -1, 1, 1), persistent=False)
        self.gain: Tensor
        self.shift: Tensor
        self.shifted = bool(shift.any())

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        scaled = inputs["latent_sample"] * self.gain
        out: Tensor = self.decoder(scaled + self.shift if self.shifted else scaled)
        return out


def autoencoder_kl(vae: Any) -> nn.Module:
    """The decoder of an AutoencoderKL."""
    config = vae.config
    parts = [vae.decoder] if vae.post_quant_conv is None else [vae.post_quant_conv, vae.decoder]
    scale, shift = torch.tensor([float(config.scaling_factor)]), torch.tensor([float(config.shift_factor or 0.0)])
    if config.latents_mean and config.latents_std:  # as StableDiffusionXLPipeline undoes them
        return _decoder(parts, gain=torch.tensor(config.latents_std) / scale, shift=torch.tensor(config.latents_mean))
    return _decoder(parts, gain=1 / scale, shift=shift)


def autoencoder_tiny(vae: Any) -> nn.Module:
    """The decoder of an AutoencoderTiny."""
    config = vae.config
    scale, shift = torch.tensor([float(config.scaling_factor)]), torch.tensor([float(config.shift_factor or 0.0)])
    return _decoder([vae.decoder], gain=1 / scale, shift=shift)


def _decoder(parts: list[nn.Module], *, gain: Tensor, shift: Tensor) -> nn.Module:
    return Decoder.with_inputs(["latent_sample"])(nn.Sequential(*parts), gain=gain.float(), shift=shift.float())


def signature_of(config: Any, *, latent: tuple[int, int, int] | None) -> tuple[Signature, tuple[str, ...]]:
    """The signature and notes; `latent` (channels, height, width) is what the denoiser beside it makes, if any.

    Raises DataError where the decoder takes another number of channels, or the config holds no size.
    """
    notes: tuple[str, ...] = ()
    channels, factor = config.latent_channels, enlargement(config)
    if latent is None:
        height, width = _own_size(config, factor)
        if "sample_size" not in config:
            notes = (f"latents of {height}x{width}: an AutoencoderTiny takes any size, and its config names none",)
    elif latent[0] != channels:
        raise DataError(f"config.json: latent_channels is {channels}, and the denoiser beside it makes {latent[0]}")
    else:
        _, height, width = latent
    latent_spec = TensorSpec("latent_sample", batched(channels, height, width), "float32", "latent")
    image_shape = batched(config.out_channels, height * factor, width * factor)
    return Signature(
        (latent_spec,), (TensorSpec("out_sample", image_shape, "float32", "image", **image_range("image")),)
    ), notes


def enlargement(config: Any) -> int:
    """Pixels of the image for one of the latent: every level but the last doubles it."""
    if "upsampling_scaling_factor" in config:
        return int(config.upsampling_scaling_factor ** (len(config.num_decoder_blocks) - 1))
    return int(2 ** (len(config.block_out_channels) - 1))


def _own_size(config: Any, factor: int) -> tuple[int, int]:
    if "sample_size" not in config:
        return TINY_LATENT, TINY_LATENT
    size = config.sample_size
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side >= factor for side in sides):
        raise DataError(
            f"config.json: sample_size is {size!r}; give the height and width of the images, as one number or two, "
            f"each {factor} or more"
        )
    return sides[0] // factor, sides[1] // factor
