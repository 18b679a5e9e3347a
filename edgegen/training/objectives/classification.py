"""Classification, for the local feature extractor: cross entropy on images with a little noise."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch


class Classification(Table):
    """Cross entropy of the student's (batch, classes) for images with Gaussian noise, against smoothed labels.

    The noise keeps the features from learning single pixels by heart, so that held-out images look more like training
    images to them.
    """

    paper: ClassVar[str] = "arXiv:1512.00567, section 7 (label smoothing)"
    needs: ClassVar[frozenset[Need]] = frozenset({"real_images", "classifier"})

    noise: Annotated[float, Field(ge=0.0)] = Field(0.2, description="standard deviation of the noise on the images")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="share of the target that is spread evenly over the classes"
    )

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch
        import torch.nn.functional as F

        x, classes = batch.images, batch.condition
        assert classes is not None
        noisy = x + self.noise * torch.randn(x.shape, generator=rng, device=x.device)
        return {"student": F.cross_entropy(networks["student"](noisy), classes, label_smoothing=self.label_smoothing)}
