"""What methods share that compare a one-step student's images with real ones: times of noise, figures, warnings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from edgegen.flow.path import one_step
from edgegen.flow.time_sampling import uniform
from edgegen.support.tables import Table
from edgegen.training.distances import Distance, distance_of
from edgegen.training.objective import Networks
from edgegen.training.pairs import pair

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edgegen.training.batch import Batch

COVERAGE, BEYOND = "coverage", "beyond_range"
COMPARED = 64  # images of a batch: all distances between more cost time
LEAST_COVERAGE = 0.25  # 0.5 where both sets are of one distribution: half of the modes are left out
MOST_BEYOND = 0.05  # of the data's range


class NoisyTimes(Table):
    """The keys of the times at which noisy images are compared; t = 0 is an image, t = 1 is noise."""

    low: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.02, description="least time at which noisy images are compared"
    )
    high: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.98, description="largest such time; DMD takes the same shares of its steps"
    )

    @model_validator(mode="after")
    def low_is_below_high(self) -> "NoisyTimes":
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}: times go from low to high")
        return self

    def times(self, count: int, rng: "torch.Generator") -> "Tensor":
        """t ~ U(low, high): (count,)."""
        return uniform(count, rng, low=self.low, high=self.high)


def regression_on_pairs(distance: Distance, networks: Networks, batch: "Batch") -> "Tensor":
    """The mean distance of the student's images of the pairs' noise to the teacher's: a scalar."""
    e, x = pair(batch)
    image = one_step(networks["student"], e, batch.condition)
    loss: Tensor = distance_of(distance, networks)(image, x).mean()
    return loss


def image_figures(generated: "Tensor", real: "Tensor") -> "dict[str, Tensor]":
    """Two scalars of as many generated as real images (batch, channels, height, width), to be logged.

    coverage: the share of the real images to which a generated one is nearer than every other real one (after
    arXiv:2002.09797, with k = 1); 0.5 for equal distributions, less where modes are missing. NaN for a single image.
    beyond_range: how far pixels are outside of the real images' range, on average, as a share of that range.
    """
    import torch

    made, images = (x[:COMPARED].detach().float().flatten(1) for x in (generated, real))
    between = torch.cdist(images, images).fill_diagonal_(torch.inf).amin(dim=1)
    nearest = torch.cdist(images, made).amin(dim=1)
    covered = torch.where(between.isfinite(), (nearest < between).float(), torch.nan).mean()
    low, high = images.amin(), images.amax()
    outside = ((low - made).relu() + (made - high).relu()).mean()
    return {COVERAGE: covered, BEYOND: outside / (high - low).clamp(min=torch.finfo(torch.float32).tiny)}


def image_warnings(figures: Mapping[str, float]) -> list[str]:
    """What the means of these figures over some time tell of."""
    faults = []
    if figures.get(COVERAGE, 1.0) < LEAST_COVERAGE:
        faults.append(
            "the student leaves out kinds of images, or its images are noisy: a generated image is nearest to only "
            f"{figures[COVERAGE]:.0%} of the real ones; half would be right"
        )
    if figures.get(BEYOND, 0.0) > MOST_BEYOND:
        faults.append(
            "the student's images leave the data's range: the pixels are outside by "
            f"{figures[BEYOND]:.0%} of it on average"
        )
    return faults
