"""Evaluations are counted in images, and only inside of the block."""

import torch
from torch import Tensor, nn

from edgegen.flow.evaluations import evaluations
from edgegen.flow.solvers import solve


class Still(nn.Module):
    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return torch.zeros_like(x)


def test_each_evaluation_counts_its_images() -> None:
    network, counts = Still(), list[int]()
    with evaluations(network, counts.append):
        solution = solve(network, torch.zeros(3, 1, 4, 4), None, solver="heun", steps=5)
    assert counts == [3] * solution.evaluations
    network(torch.zeros(1, 1, 4, 4), torch.zeros(1), None)
    assert len(counts) == solution.evaluations
