"""Best of N: a network that was trained to tell real images from the student's chooses among several of those.

Its folder, `verifier` beside a stage's generator, holds config.json and safetensors.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.flow.path import ImageFacts, interpolate
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import CONFIG, WEIGHTS
from edgegen.models.weights import load_weights
from edgegen.support.rng import generator
from edgegen.support.storage import read_json, save_tensors, write_json
from edgegen.training.ratio_network import ImageEncoder, RatioNetwork

TIMES = 4  # of noise at which an image is judged: one time says less than their mean
NOISE_SEED = 0  # of the noise that is mixed in; the same for all candidates, so that they differ by the image alone

OneStepImages = Callable[[Tensor, "Tensor | None"], Tensor]  # noise and conditions -> images


@dataclass(frozen=True)
class Verifier:
    """`network` gives log p_t / q_t of an image with noise (edgegen.training.ratio_network), at times low to high."""

    network: RatioNetwork
    low: float
    high: float

    @torch.no_grad()
    def scores(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """(batch,): the mean logit over the times, of images (batch, channels, height, width); higher is more real."""
        rng = generator(NOISE_SEED)
        total = torch.zeros(len(images), device=images.device)
        for number in range(TIMES):
            e = torch.randn(images.shape[1:], generator=rng).to(images.device).expand_as(images)
            t = torch.full_like(total, self.low + (self.high - self.low) * (number + 0.5) / TIMES)
            total += self.network(interpolate(images, e, t), t, condition)
        return total / TIMES

    @torch.no_grad()
    def best_of(self, count: int, images_of: OneStepImages, noise: Tensor, condition: Tensor | None) -> Tensor:
        """Of each noise (batch, ...) the best of `count` images: the given noise's, and those of further noise.

        The further noise of a row comes from that row alone: an image does not depend on its batch.
        """
        best = images_of(noise, condition)
        top = self.scores(best, condition)
        for candidate in range(1, count):
            images = images_of(_further_noise(noise, candidate), condition)
            scores = self.scores(images, condition)
            better = scores > top
            best = torch.where(better.reshape(-1, *[1] * (best.ndim - 1)), images, best)
            top = torch.where(better, scores, top)
        return best


def _further_noise(noise: Tensor, candidate: int) -> Tensor:
    rows = noise.detach().float().cpu().contiguous()
    seeds = [int.from_bytes(hashlib.sha256(row.numpy().tobytes()).digest()[:7], "big") for row in rows]
    drawn = [torch.randn(rows.shape[1:], generator=generator(seed, candidate)) for seed in seeds]
    return torch.stack(drawn).to(noise)


def save(network: nn.Module, folder: Path, *, low: float, high: float) -> None:
    """Writes the folder of a trained RatioNetwork."""
    assert isinstance(network, RatioNetwork), "a method names such a network alone"
    encoder = network.encoder
    config = encoder.config.to_dict() if isinstance(encoder, EdgeUNet) else {**encoder.config}  # type: ignore[dict-item]
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, network.state_dict())
    write_json(folder / CONFIG, {"_class_name": "RatioNetwork", "low": low, "high": high, "encoder": config})


def load(folder: Path) -> Verifier:
    """Reads what `save` wrote. Raises DataError where it is not there, or holds something else."""
    config = read_json(folder / CONFIG)
    try:
        network, low, high = _new(config["encoder"]), float(config["low"]), float(config["high"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise DataError(f"{folder / CONFIG}: not the settings of a verifier: {reason}; train the student again") from e
    load_weights(network, [folder / WEIGHTS])
    return Verifier(network.eval().requires_grad_(False), low, high)


def _new(encoder: Mapping[str, Any]) -> RatioNetwork:
    if encoder.get("_class_name") == "EdgeUNet":
        config = EdgeUNetConfig.from_dict(encoder)
        return RatioNetwork(EdgeUNet(config).encoder(), config.channels)
    own = ImageEncoder(
        ImageFacts(encoder["channels"], encoder["classes"], encoder["upscale"]), width=int(encoder["width"])
    )
    return RatioNetwork(own, own.widths)
