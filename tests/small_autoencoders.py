"""Autoencoders of diffusers with few weights, trained for seconds, so that their latents hold the images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

KL: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "latent_channels": 3,
}
TINY: dict[str, Any] = {
    "encoder_block_out_channels": (16, 16),
    "decoder_block_out_channels": (16, 16),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
    "latent_channels": 4,
}


def new_autoencoder(kind: str, *, channels: int = 1, **settings: Any) -> Any:
    """An AutoencoderKL or AutoencoderTiny for images of so many channels, with seeded weights."""
    import diffusers

    torch.manual_seed(0)
    config = (KL if kind == "AutoencoderKL" else TINY) | settings
    return getattr(diffusers, kind)(in_channels=channels, out_channels=channels, **config)


def trained_autoencoder(images: Tensor, folder: Path, *, steps: int = 150, **settings: Any) -> Path:
    """An AutoencoderTiny that was trained to give back `images` (n, channels, height, width) in [-1, 1]."""
    network = new_autoencoder("AutoencoderTiny", channels=images.shape[1], **settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (32,), generator=rng)]
        loss = mse_loss(network.decode(network.encode(batch).latents).sample, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(folder)
    return folder
