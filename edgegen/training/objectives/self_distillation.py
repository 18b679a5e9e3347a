"""Quantization-aware self-distillation: the rounded network learns the pictures of its float self."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgegen.training.batch import Batch


@dataclass(frozen=True)
class SelfDistillation:
    """|| Q(z) - G(z) ||^2 of the same inputs z: Q rounds in its forward pass, gradients pass straight through."""

    paper = "arXiv:1806.08342, section 4 (training with simulated quantization); arXiv:1711.05852 (a float teacher)"

    def losses(self, nets: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted = nets["float"](*batch.inputs)
        return {"student": (nets["student"](*batch.inputs) - wanted).square().mean()}
