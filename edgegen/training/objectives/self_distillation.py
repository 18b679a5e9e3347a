"""Quantization-aware self-distillation: the quantized network learns the images of its float self."""

from typing import TYPE_CHECKING, ClassVar

from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch


class SelfDistillation(Table):
    """|| Q(z) - G(z) ||^2 of the same inputs z: Q rounds in its forward pass, gradients pass straight through."""

    paper: ClassVar[str] = (
        "arXiv:1806.08342, section 4 (training with simulated quantization); arXiv:1711.05852 (a float teacher)"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"float_network"})

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        with torch.no_grad():
            target = networks["float"](*batch.inputs)
        return {"student": (networks["student"](*batch.inputs) - target).square().mean()}
