"""What the networks of a run make, and how it becomes the images that are compared and shown: the one place for both.

In a run on images the two are the same. In one on latents (data.autoencoder) the networks make latents, and the decoder
of the stage data makes images of them; whatever looks at images calls `images` first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.formats.stage_folder import sample_shape
from edgegen.models.observed import decoder_in
from edgegen.noise import normal
from edgegen.support.storage import read_json
from edgegen.training.distributed import state

LARGEST_BATCH = 1 << 18  # pixels decoded at once: their activations are some hundred times as many values


@dataclass(frozen=True, eq=False)
class SampleSpace:
    """`shape` is that of one sample, `image_shape` that of what is seen of it; `decoder` None: they are the same."""

    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    decoder: nn.Module | None

    @staticmethod
    def of(folder: Path) -> "SampleSpace":
        """Of a finished stage data."""
        about: Mapping[str, Any] = read_json(folder / "data.json")
        decoder = decoder_in(folder)
        if decoder is not None:
            decoder.to(state().device)
        return SampleSpace(tuple(sample_shape(about)), tuple(about["image_shape"]), decoder)

    def noise(self, seed: int, first: int, count: int) -> Tensor:
        """The noise first .. first + count - 1 of a seed, of which the networks make samples: (count, ...)."""
        return torch.from_numpy(normal(seed, first, count, self.shape))

    @torch.no_grad()
    def images(self, samples: Tensor) -> Tensor:
        """Samples (n, ...) of the networks -> images (n, channels, height, width) in [-1, 1], on the CPU."""
        if self.decoder is None:
            return samples
        parts = torch.split(samples, batch_of(self.image_shape))
        return torch.cat([self.decoder(part.float().to(state().device)).cpu() for part in parts])


def batch_of(image_shape: tuple[int, ...] | list[int]) -> int:
    """How many images are encoded or decoded at once, so that memory is bounded."""
    return max(1, LARGEST_BATCH // (image_shape[-2] * image_shape[-1]))
