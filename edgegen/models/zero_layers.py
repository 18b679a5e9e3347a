"""All-zero layers of fresh networks, drawn anew so that a comparison of their outputs means something."""

import torch
from torch import nn

from edgegen.noise import normal


def randomize_zero_layers(network: nn.Module, seed: int) -> tuple[str, ...]:
    """Draw every all-zero parameter of `network` anew, in place, and give their names.

    Fresh networks end in zero layers, so that one step returns the noise itself and any parity test passes on nothing.
    Matrices and kernels get standard deviation 1/sqrt(inputs), vectors 0.1.
    """
    zeros = [(name, p) for name, p in network.named_parameters() if p.numel() and not p.any()]
    for index, (_, parameter) in enumerate(zeros):
        deviation = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        values = torch.from_numpy(normal(seed, index, 1, tuple(parameter.shape))[0])
        with torch.no_grad():
            parameter.copy_(values * deviation)
    return tuple(name for name, _ in zeros)
