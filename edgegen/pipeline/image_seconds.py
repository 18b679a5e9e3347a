"""How long one evaluation of a network takes for one image, in large batches."""

import time

import torch

from edgegen.flow.condition import made_up
from edgegen.models.generator import Loaded
from edgegen.training.distributed import state
from edgegen.training.trainer import wait_for

SMALL = 4  # images in the first, careful try of a network whose speed is not known
LARGEST_BATCH = 512  # images that are sampled at once


def image_seconds(loaded: Loaded, *, limit_s: float) -> float:
    """Seconds of one evaluation for one image, in as large a batch as `limit_s` allows."""
    device = state().device
    network = loaded.net.to(device).eval()
    batch, seconds = SMALL, 0.0
    while True:
        noise, condition = torch.randn(batch, *loaded.signature.sample_shape), made_up(loaded.signature, batch)
        noise, condition = noise.to(device), None if condition is None else condition.to(device)
        for _ in range(2 if batch == SMALL else 1):  # the first evaluation of all sets things up
            before = time.monotonic()
            with torch.no_grad():
                network(noise, torch.ones(batch, device=device), condition)
            wait_for(device)
            seconds = time.monotonic() - before
        larger = min(LARGEST_BATCH, batch * 8)
        if larger == batch or seconds * 8 > limit_s:
            return seconds / batch
        batch = larger
