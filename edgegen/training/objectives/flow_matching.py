"""Flow matching on straight paths (rectified flow): regress v(x_t, t) on e - x."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgegen.flow.path import interpolate
from edgegen.training.batch import Batch


@dataclass(frozen=True)
class FlowMatching:
    """E || v(x_t, t) - (e - x) ||^2, e ~ N(0, I), t ~ U(0, 1)."""

    paper = "arXiv:2209.03003, Eq. 1"

    def losses(self, nets: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        x = batch.images
        e = torch.randn(x.shape, generator=rng, device=x.device)
        t = torch.rand(len(x), generator=rng, device=x.device)
        v = nets["student"](interpolate(x, e, t), t, batch.labels)
        return {"student": (v - (e - x)).square().mean()}
