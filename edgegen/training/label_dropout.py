"""Training without a class: some samples are given the label that stands for none, for guidance by classes."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from edgegen.errors import TrainingError
from edgegen.flow.guidance import unconditional_class

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LabelDropout = Annotated[
    float,
    Field(
        ge=0.0,
        lt=1.0,
        description="share of the samples whose class the network is not told, so that it also knows the velocity "
        "without a class, for guidance (arXiv:2207.12598, Algorithm 1; 0.1 is usual)",
        exclude_if=(0.0).__eq__,
    ),
]


def without_classes(network: "nn.Module", labels: "Tensor") -> "Tensor":
    """The label that stands for no class, as often as there are labels: (batch,). Raises TrainingError."""
    import torch

    label = unconditional_class(network)
    if label is None:
        raise TrainingError(f"{type(network).__name__} knows no label that stands for no class")
    return torch.full_like(labels, label)


def dropped(
    network: "nn.Module", labels: "Tensor | None", share: float, rng: "torch.Generator"
) -> "tuple[Tensor, Tensor]":
    """Labels (batch,) with a share of them replaced, and which ones: a mask (batch,).

    Raises TrainingError where there are no labels.
    """
    import torch

    if labels is None:
        raise TrainingError("label_dropout: the examples have no classes")
    mask = torch.rand(len(labels), generator=rng, device=labels.device) < share
    return torch.where(mask, without_classes(network, labels), labels), mask
