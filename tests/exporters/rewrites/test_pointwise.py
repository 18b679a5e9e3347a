"""pointwise: dense layers over the channels become 1x1 convolutions; other contractions stay."""

import pytest
import torch
from torch import Tensor, nn

from edgegen.exporters.rewrites import pointwise

ATEN = torch.ops.aten


class Dense(nn.Module):
    """A dense layer 6 -> 4 on the channels of a picture, written in one of the ways that people write it."""

    def __init__(self, kind: str, *, bias: bool = True, back: tuple[int, ...] = (0, 3, 1, 2)) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4, bias=bias)
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.bias = nn.Parameter(torch.randn(4)) if bias else None
        self.kind, self.back = kind, back

    def forward(self, x: Tensor) -> Tensor:
        h = x.permute(0, 2, 3, 1)
        match self.kind:
            case "linear":
                h = self.linear(h)
            case "matmul":
                h = h @ self.weight
            case "rows":
                h = torch.einsum("bhwc,hd->bdwc", h, self.weight)
            case equation:
                weight = self.weight.T if equation.split(",")[1][0] == "d" else self.weight
                h = torch.einsum(equation, h, weight if weight is self.weight else self.linear.weight)
        if self.bias is not None and self.kind != "linear":
            h = h + self.bias if self.kind != "rows" else h
        return h.permute(self.back)


def rewritten(module: nn.Module, *shape: int) -> tuple[float, int]:
    """The largest error against the module itself in float64, and the 1x1 convolutions made."""
    module = module.double().eval()
    x = torch.randn(*shape, dtype=torch.float64)
    graph_module = torch.export.export(module, (x,)).module()
    pointwise.rewrite(graph_module)
    made = [node for node in graph_module.graph.nodes if node.target == ATEN.conv2d.default]
    turns = [node for node in graph_module.graph.nodes if node.target == ATEN.permute.default]
    assert not made or not turns
    return float((graph_module(x) - module(x)).detach().abs().max()), len(made)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "matmul", "bhwc,cd->bhwd", "abcx, xy -> abcy", "bhwc,dc->bhwd"])
def test_every_spelling_becomes_a_convolution(kind: str, bias: bool) -> None:
    error, made = rewritten(Dense(kind, bias=bias), 2, 6, 3, 5)
    assert error < 1e-12
    assert made == 1


def test_the_rest_is_left_alone() -> None:
    assert rewritten(Dense("linear", back=(0, 3, 2, 1)), 2, 6, 3, 5) == (0.0, 0)
    assert rewritten(Dense("rows"), 2, 6, 6, 5) == (0.0, 0)


class ReadTwice(Dense):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x.permute(0, 2, 3, 1))
        return h.permute(0, 3, 1, 2) * h.sum()


def test_a_layer_that_is_read_elsewhere_stays() -> None:
    assert rewritten(ReadTwice("linear"), 2, 6, 3, 5) == (0.0, 0)
