"""conv_bias: a constant per channel goes into the convolution before it; anything else stays."""

import pytest
import torch
from torch import Tensor, nn

from edgegen.exporters.rewrites import conv_bias


class Shifted(nn.Module):
    def __init__(self, shift: Tensor, *, bias: bool = True, first: bool = True, alpha: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1, stride=2, bias=bias)
        self.shift = nn.Parameter(shift)
        self.first, self.alpha = first, alpha

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return torch.add(h, self.shift, alpha=self.alpha) if self.first else self.shift + h


class Twice(Shifted):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return (h + self.shift) * h


def rewritten(module: nn.Module) -> tuple[float, int]:
    """The largest error against the module itself in float64, and the additions that are left."""
    module = module.double().eval()
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    graph_module = torch.export.export(module, (x,)).module()
    conv_bias.rewrite(graph_module)
    left = [node for node in graph_module.graph.nodes if node.target == torch.ops.aten.add.Tensor]
    return float((graph_module(x) - module(x)).detach().abs().max()), len(left)


@pytest.mark.parametrize("shape", [(1, 5, 1, 1), (5, 1, 1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_constant_per_channel_is_folded(shape: tuple[int, ...], bias: bool, first: bool) -> None:
    error, left = rewritten(Shifted(torch.randn(shape), bias=bias, first=first))
    assert error < 1e-12
    assert left == 0


@pytest.mark.parametrize(
    "module",
    [
        Shifted(torch.randn(1, 1, 1, 1)),
        Shifted(torch.randn(1, 5, 5, 4)),
        Shifted(torch.randn(2, 5, 1, 1)),
        Shifted(torch.randn(1, 5, 1, 1), alpha=2.0),
        Twice(torch.randn(1, 5, 1, 1)),
    ],
    ids=["scalar", "picture", "sample", "alpha", "read-twice"],
)
def test_the_rest_is_left_alone(module: nn.Module) -> None:
    error, left = rewritten(module)
    assert error == 0.0
    assert left == 1
