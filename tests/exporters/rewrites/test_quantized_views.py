"""quantized_views: a second rounding to the same grid goes, any other stays; not one number changes."""

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators

from edgegen.exporters.rewrites import quantized_views

OPS = torch.ops.quantized_decomposed


class Rounded(nn.Module):
    """Two views with a rounding behind each; `scale` is that of the second."""

    def __init__(self, scale: float, *, between: bool = False) -> None:
        super().__init__()
        self.scale, self.between = scale, between

    def forward(self, x: Tensor) -> Tensor:
        h = grid(x, 0.1).reshape(2, 3, 4, 5)
        h = grid(h, 0.1).permute(0, 2, 1, 3)
        return grid(h * 2 if self.between else h, self.scale)


def grid(x: Tensor, scale: float) -> Tensor:
    codes = OPS.quantize_per_tensor(x, scale, 3, -128, 127, torch.int8)
    values: Tensor = OPS.dequantize_per_tensor(codes, scale, 3, -128, 127, torch.int8)
    return values


@pytest.mark.parametrize(("module", "left"), [(Rounded(0.1), 1), (Rounded(0.2), 2), (Rounded(0.1, between=True), 2)])
def test_only_what_changes_nothing_goes(module: nn.Module, left: int) -> None:
    x = 8 * torch.randn(2, 12, 5)
    graph_module = torch.export.export(module, (x,)).module()
    expected = module(x)
    quantized_views.rewrite(graph_module)
    roundings = [n for n in graph_module.graph.nodes if n.target == OPS.quantize_per_tensor.default]
    assert len(roundings) == left
    assert torch.equal(graph_module(x), expected)
