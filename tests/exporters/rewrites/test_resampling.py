"""resampling: repeats and means over split axes become upsampling and pooling, at any batch; other reshapes stay."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgegen.exporters.rewrites import resampling

ATEN = torch.ops.aten


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def repeat(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h, 1, w, 1).repeat(1, 1, 1, 2, 1, 3).reshape(n, c, 2 * h, 3 * w)


def expand(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(n, c, 2 * h, 2 * w)


def expand_of_view(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h, 1, w, 1).expand(-1, -1, -1, 2, -1, 2).contiguous().view(n, c, 2 * h, 2 * w)


def mean(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 3, 3).mean(dim=(3, 5))


def mean_counted_back(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).mean(dim=(-1, -3))


def tiles(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, 1, h, 1, w).repeat(1, 1, 2, 1, 2, 1).reshape(n, c, 2 * h, 2 * w)


def other_view_after(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h, 1, w, 1).repeat(1, 1, 1, 2, 1, 2).reshape(n, 2 * c, h, 2 * w)


def mean_of_tiles(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, 2, h // 2, 2, w // 2).mean(dim=(2, 4))


def mean_kept(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(dim=(3, 5), keepdim=True)


def rewritten(function: Callable[[Tensor], Tensor], *, dynamic: bool) -> tuple[float, set[object]]:
    """The largest error against the function itself in float64, and the operators of resampling now called."""
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    module = Calls(function)
    graph_module = torch.export.export(module, (x,), dynamic_shapes=shapes).module()
    resampling.rewrite(graph_module)
    targets = {node.target for node in graph_module.graph.nodes}
    found = targets & {ATEN.upsample_nearest2d.vec, ATEN.avg_pool2d.default}
    x = torch.randn(5 if dynamic else 2, 3, 4, 6, dtype=torch.float64)
    return float((graph_module(x) - function(x)).abs().max()), found


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("function", [repeat, expand_of_view])
def test_a_repeat_is_upsampling(function: Callable[[Tensor], Tensor], dynamic: bool) -> None:
    assert rewritten(function, dynamic=dynamic) == (0.0, {ATEN.upsample_nearest2d.vec})


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("function", [mean, mean_counted_back])
def test_a_mean_is_pooling(function: Callable[[Tensor], Tensor], dynamic: bool) -> None:
    error, found = rewritten(function, dynamic=dynamic)
    assert error < 1e-15
    assert found == {ATEN.avg_pool2d.default}


@pytest.mark.parametrize("function", [tiles, other_view_after, mean_of_tiles, mean_kept, expand])
def test_the_rest_is_left_alone(function: Callable[[Tensor], Tensor]) -> None:
    assert rewritten(function, dynamic=False) == (0.0, set())
