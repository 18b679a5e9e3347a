"""Optimal assignment of noises to images, against all orders of a small batch."""

import itertools

import torch

from edgegen.flow.coupling import minibatch_ot
from edgegen.support.rng import generator


def cost(x: torch.Tensor, e: torch.Tensor) -> float:
    return float((x - e).square().sum())


def test_no_order_of_the_noises_within_the_classes_is_nearer_to_the_images() -> None:
    g = generator(0)
    x, e = torch.randn(6, 1, 2, 2, generator=g), torch.randn(6, 1, 2, 2, generator=g)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    orders = [list(order) for order in itertools.permutations(range(6))]
    whole = min(cost(x, e[order]) for order in orders)
    inside = min(cost(x, e[order]) for order in orders if torch.equal(labels[order], labels))
    assert cost(x, minibatch_ot(x, e, None)) == whole
    coupled = minibatch_ot(x, e, labels)
    assert cost(x, coupled) == inside
    assert whole < inside < cost(x, e)
    for label in (0, 1):  # the noises of a class stay in it
        rows = labels == label
        assert {tuple(row.flatten().tolist()) for row in coupled[rows]} == {
            tuple(row.flatten().tolist()) for row in e[rows]
        }
