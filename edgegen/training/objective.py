"""The shape of a training method. No torch at import: a recipe is checked against the methods before any work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch
    from edgegen.training.networks import TrainedNetwork

# What a method trains on and with; the plan says which stage gives it (edgegen.pipeline.methods).
Need = Literal[
    "real_images",  # batches of the data set: images and conditions (edgegen.training.pairs.real_images)
    "pairs",  # batches of the teacher's (noise, image) pairs; beside them `real` where real images are needed, too
    "trajectories",  # pairs with the states between noise and image (edgegen.training.pairs.trajectories)
    "teacher",  # networks["teacher"], frozen
    "teacher_features",  # beside it, its layers: networks["teacher"].encode, of an EdgeUNet alone
    "slimmed_network",  # networks["slimmed"], frozen: the averaged weights of the stage `slim`
    "earlier_network",  # networks["earlier"], frozen: the averaged weights of the stage before
    "feature_network",  # networks["features"], frozen: layers of the stage `extractor` (edgegen.training.distances)
    "float_network",  # networks["float"], frozen: a generator whose quantized self is trained
    "trained_student",  # networks["student"] has been trained: a fresh one, which gives zeros, has no gradient
    "second_time",  # networks["student"] takes a second time r (edgegen.flow.path)
    "unconditional_class",  # networks["student"] has a label that stands for no class (edgegen.flow.guidance)
    "classifier",  # networks["student"] is a classifier of images and not a velocity
]

# What to do where a teacher has no "teacher_features".
WITHOUT_FEATURES = "give the method what needs none (critic = 'small', encoder = 'small', features = 'pixels')"

Networks: TypeAlias = "Mapping[str, nn.Module]"
TrainedNetworks: TypeAlias = "Mapping[str, TrainedNetwork]"
Losses: TypeAlias = "Mapping[str, Tensor]"


@dataclass(frozen=True)
class VerifierNetwork:
    """The trained network, a RatioNetwork, that tells real images from the student's, with noise of times low to high.

    It is kept beside the student and chooses the best of several images (edgegen.models.verifier).
    """

    name: str
    low: float
    high: float


class Objective(Protocol):
    """A training method: a frozen pydantic record that forbids other keys, such as edgegen.support.tables.Table.

    Its fields are the hyperparameters of the method: the only place of their defaults and their documentation, and the
    keys that the recipe's table takes beside those of the loop. `paper` is the source, with the equation.

    Six attributes more are not needed; edgegen.training.figures reads the first and the third:

    `one_step = True` where the student is to make an image of noise in one step: then the spread of its images is
    watched.

    `noise_alone = True` where it is trained to start at noise alone: the steps that start elsewhere are not evaluated.

    `warnings(figures: Mapping[str, float]) -> Sequence[str]` tells of faults, from the losses and figures by their
    names, each the mean of the last lines of the log: "the fake network lags: its loss is 1.8 times the teacher's".
    What stands before the colon names the fault, and is the same while it lasts.

    `within_condition` says how to do without, where samples of one condition are compared or exchanged with each other:
    a method is refused so for images as conditions, of which no two samples share one. "": it does none of that.

    `recall_drop`, for a recipe that gives none: the share of its best by which the recall of held-out images may fall
    in the stage `finish` (edgegen.recipe.Finish).

    `verifier`, a VerifierNetwork or None.
    """

    @property
    def paper(self) -> str: ...

    @property
    def needs(self) -> frozenset[Need]: ...

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        """The networks that it trains beside the student; "student" may be among them, with settings of its own.

        `teacher` is there where `needs` has it. Random numbers of torch are seeded when this is called.
        """

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        """The loss of each trained network in `batch.due`, as a scalar; of others it is logged and not applied.

        `networks` holds the trained ones and the frozen ones, `averages` the moving average of each trained one. A loss
        moves its own network alone; no two losses may share a part of their graphs (detach it in one of them).

        A name that is no trained network's is a figure: a scalar that is logged beside the losses and moves nothing,
        such as those of edgegen.training.figures. NaN, where a batch has nothing to say, is left out.
        """
