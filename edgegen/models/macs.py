"""What one evaluation of a network costs: its multiply-accumulates, counted in a run."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgegen.flow.condition import made_up
from edgegen.models.generator import Loaded


def macs(loaded: Loaded) -> int:
    """Multiply-accumulates of one evaluation for one image: convolutions and matrix products, attention included."""
    noise = torch.zeros(1, *loaded.signature.sample_shape)
    with FlopCounterMode(display=False) as counter:
        loaded.net(noise, torch.ones(1), made_up(loaded.signature, 1))
    return int(counter.get_total_flops()) // 2
