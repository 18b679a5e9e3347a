"""What one evaluation of a network costs: its multiply-accumulates, counted in a run."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgegen.models.generator import Loaded


def macs(loaded: Loaded) -> int:
    """Multiply-accumulates of one evaluation for one image: convolutions and matrix products, attention included."""
    noise = torch.zeros(1, *loaded.signature.sample_shape)
    labels = torch.zeros(1, dtype=torch.int64) if loaded.signature.num_classes else None
    with FlopCounterMode(display=False) as counter:
        loaded.net(noise, torch.ones(1), labels)
    return int(counter.get_total_flops()) // 2
