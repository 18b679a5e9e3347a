"""batch_norm: a norm behind a layer is in its weights, for every kind of layer; norms that are not stay."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from edgegen.program.batch_norm import fold_batch_norms
from edgegen.quantize.layers import layers_of

NORMS = (torch.ops.aten.batch_norm.default,)


def lived(net: nn.Module) -> nn.Module:
    """In evaluation mode, in float64, with statistics that are not those of a fresh layer."""
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.3, 2.0)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
    return net.double().eval()


def folded(net: nn.Module, x: Tensor) -> tuple[fx.GraphModule, int]:
    """The graph, and how many norms are left."""
    graph = torch.export.export(net, (x,)).module()
    fold_batch_norms(graph)
    return graph, sum(node.target in NORMS for node in graph.graph.nodes)


LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), (3, 4)),
    (lambda: nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6)), (3, 4, 7)),
    (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)), (3, 4, 7, 6)),
    (lambda: nn.Sequential(nn.ConvTranspose1d(4, 6, 3, 2, groups=2), nn.BatchNorm1d(6)), (3, 4, 7)),
    (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, bias=False), nn.BatchNorm2d(6)), (3, 4, 5, 4)),
    (lambda: nn.Sequential(nn.ConvTranspose2d(4, 8, 3, 2, groups=4, bias=False), nn.BatchNorm2d(8)), (3, 4, 5, 4)),
    (lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4), nn.BatchNorm2d(4)), (3, 4, 5, 4)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_a_norm_behind_a_layer_is_in_its_weights(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net, x = lived(make()), torch.randn(shape, dtype=torch.float64)
    graph, left = folded(net, x)
    assert left == 0
    torch.testing.assert_close(graph(x), net(x), rtol=1e-12, atol=1e-12)
    assert [layer.name for layer in layers_of(graph)] == ["0"], "the layer keeps its name"


class ReadTwice(nn.Module):
    """Its convolution is read beside the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = self.norm(y) + y
        return out


class Shared(ReadTwice):
    """One convolution, two norms of it."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)) + self.other(self.conv(2 * x))
        return out


@pytest.mark.parametrize(
    ("make", "shape", "norms"),
    [
        (ReadTwice, (2, 3, 4, 4), 1),
        (Shared, (2, 3, 4, 4), 0),
        (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), (2, 3, 4, 4), 1),
        (lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(4)), (3, 4, 5), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), (2, 3, 4, 4), 1),
    ],
)
def test_the_rest_computes_the_same(make: Callable[[], nn.Module], shape: tuple[int, ...], norms: int) -> None:
    torch.manual_seed(0)
    net, x = lived(make()), torch.randn(shape, dtype=torch.float64)
    graph, left = folded(net, x)
    assert left == norms
    torch.testing.assert_close(graph(x), net(x), rtol=1e-12, atol=1e-12)
