"""An objective: regression of the pairs' images by absolute error, with a weight as its one hyperparameter."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch


class AbsoluteRegression(Table):
    """w | e - v(e, 1) - x | over stored pairs (e, x)."""

    paper: ClassVar[str] = "made up"
    needs: ClassVar[frozenset[Need]] = frozenset({"pairs"})

    weight: Annotated[float, Field(gt=0.0)] = Field(1.0, description="w")

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        e = batch.noise
        assert e is not None
        images = e - networks["student"](e, e.new_ones(len(e)), batch.condition)
        return {"student": self.weight * (images - batch.images).abs().mean()}
