"""Guidance: a velocity that is pushed away from that of a worse network, v + (w - 1) (v - v').

Worse is the same network told no class (classifier-free guidance, arXiv:2207.12598, Eq. 6, whose w is ours less 1), or
another network, smaller or less trained (autoguidance, arXiv:2406.02507). Either acts at times in an interval alone if
wanted (arXiv:2404.07724; its noise level sigma is t / (1 - t) here).
"""

import torch
from torch import Tensor, nn

from edgegen.flow.guidance import Guidance, unconditional_class
from edgegen.flow.path import image_facts, per_sample, time_dtype
from edgegen.flow.time_grid import TimeGrid, grid_of


class GuidedVelocity(nn.Module):
    """velocity(x, t, condition) of a network, guided: two evaluations for one. It takes no second time.

    Args:
        network: a velocity network; without `worse` it has an unconditional class.
        guidance: scale and interval.
        worse: the network to be pushed away from.
    """

    def __init__(self, network: nn.Module, guidance: Guidance, *, worse: nn.Module | None = None) -> None:
        super().__init__()
        self.unguided, self.guidance, self.worse = network, guidance, worse
        facts = image_facts(network)
        self.image_channels, self.num_classes, self.upscale = facts.channels, facts.classes, facts.upscale
        self.none = unconditional_class(network)
        if worse is None and self.none is None:
            raise ValueError("guidance by a network that has no unconditional class")
        if hasattr(network, "time_dtype"):
            self.time_dtype = network.time_dtype

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Images (batch, channels, height, width), times (batch,), conditions (batch, ...) -> velocities like x."""
        v, v_worse = self._both(x, t, condition)
        low, high = self.guidance.interval
        excess = torch.where((t > low) & (t <= high), self.guidance.scale - 1, 0.0)
        return v + per_sample(excess, v).to(v) * (v - v_worse)

    def _both(self, x: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.worse is not None:
            own_t = t.to(time_dtype(self.worse, x.dtype))
            return self.unguided(x, t, condition), self.worse(x, own_t, condition)
        if condition is None or self.none is None:
            raise ValueError("a velocity that is guided by its classes needs classes (batch,)")
        classes = torch.cat([condition, torch.full_like(condition, self.none)])
        both = self.unguided(torch.cat([x, x]), torch.cat([t, t]), classes)
        return both[: len(x)], both[len(x) :]

    def time_grid(self, steps: int) -> TimeGrid:
        """The network's own times."""
        return grid_of(self.unguided, steps)
