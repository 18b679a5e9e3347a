"""How long one evaluation of a network takes here for one image, for estimates before a run."""

import time

import torch
from torch import Tensor

from edgegen.models.generator import Loaded
from edgegen.training.distributed import state
from edgegen.training.trainer import wait_for

SMALL = 4  # images in the first, careful try of a network whose speed is not known
LARGEST_BATCH = 512  # images that are sampled at once


def seconds_per_image(loaded: Loaded, *, limit_s: float) -> float:
    """Seconds of one evaluation for one image, in as large a batch as the time allows."""
    device = state().device
    network = loaded.net.to(device).eval()
    batch, seconds = SMALL, 0.0
    while True:
        noise, labels = _inputs(loaded, batch, device)
        for _ in range(2 if batch == SMALL else 1):  # the first evaluation of all sets things up
            before = time.monotonic()
            with torch.no_grad():
                network(noise, torch.ones(batch, device=device), labels)
            wait_for(device)
            seconds = time.monotonic() - before
        larger = min(LARGEST_BATCH, batch * 8)
        if larger == batch or seconds * 8 > limit_s:
            return seconds / batch
        batch = larger


def _inputs(loaded: Loaded, batch: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    classes = loaded.signature.num_classes
    labels = torch.arange(batch, device=device) % classes if classes else None
    return torch.randn(batch, *loaded.signature.image_shape, device=device), labels
