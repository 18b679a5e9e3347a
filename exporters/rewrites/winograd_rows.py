"""3x3 convolution -> four 1x3 convolutions of half the rows: Winograd's F(2, 3) over the rows, 6 products for 9.

    y_2r     = m_0 + m_1 + m_2        m_0 = (d_0 - d_2) g_0     m_1 = (d_1 + d_2) (g_0 + g_1 + g_2) / 2
    y_2r+1   = m_1 - m_2 - m_3        m_3 = (d_1 - d_3) g_2     m_2 = (d_2 - d_1) (g_0 - g_1 + g_2) / 2

(arXiv:1509.09308, Eq. 5; d_0..d_3 are the rows 2r-1..2r+2 of x, g_0..g_2 the rows of the kernel, and a product is a
1x3 convolution along the row.) XNNPACK runs 3x3 convolutions at the speed of its matrix product and has no Winograd
form, so that only fewer products make them faster. In one dimension there are no tiles to gather: rows are split and
joined by slices and views that are free in its layout, and the sums cost a tenth of what they save. The weights grow
from 9 to 12 numbers; a layer of a larger image saves more products with each, and comes first.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, constant, finish, in_place_of, shape, store

# Where it pays, measured with XNNPACK on x86-64 (AVX-512, one thread): the sums weigh less the more channels there are.
LEAST_PIXELS, LEAST_CHANNELS = 256, 64
MOST_GROWTH = 0.1  # of all weights; folding the time has removed some 8 % of them before


@dataclass(frozen=True)
class RowConvolution:
    """A 3x3 convolution with stride 1 and padding 1, and the sizes (batch, channels, height, width) of its input."""

    x: fx.Node
    weight: Tensor
    bias: Any
    sizes: tuple[int, int, int, int]
    name: str


def rewrite(module: fx.GraphModule) -> None:
    """Replace the 3x3 convolutions of `module` that are worth it, in place, the largest images first."""
    sites = [(node, _site(module, node)) for node in calls(module, ATEN.conv2d.default)]
    worthwhile = [(node, site) for node, site in sites if site is not None]
    weights = {node.target: constant(module, node) for node in module.graph.nodes if node.op == "get_attr"}
    room = MOST_GROWTH * sum(weight.numel() for weight in weights.values() if weight is not None)
    for node, site in sorted(worthwhile, key=lambda pair: -pair[1].sizes[2] * pair[1].sizes[3]):
        room -= site.weight.numel() / 3
        if room < 0:
            break
        kernels = [
            store(module, f"{site.name}_rows".replace(".", "_"), kernel, before=node)
            for kernel in row_kernels(site.weight)
        ]
        tracer = fx.proxy.GraphAppendingTracer(module.graph)
        with in_place_of(module, node):
            bias = None if site.bias is None else fx.Proxy(site.bias, tracer)
            y: Any = convolve(fx.Proxy(site.x, tracer), [fx.Proxy(k, tracer) for k in kernels], bias, site.sizes)
        y.node.meta.update(node.meta)
        node.replace_all_uses_with(y.node)
        module.graph.erase_node(node)
    finish(module)


def row_kernels(weight: Tensor) -> list[Tensor]:
    """The kernels of m_0..m_3, each (outputs, inputs, 1, 3), of a kernel (outputs, inputs, 3, 3)."""
    g0, g1, g2 = (weight.double()[:, :, row : row + 1] for row in range(3))
    kernels = [g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2]
    return [kernel.to(weight.dtype) for kernel in kernels]


def convolve(x: Any, kernels: list[Any], bias: Any, sizes: tuple[int, int, int, int]) -> Any:
    """The convolution of x (batch, inputs, height, width), height even -> (batch, outputs, height, width)."""
    batch, channels, height, width = sizes
    half = height // 2
    # Two rows side by side in one: cutting it gives every other row; XNNPACK has no slice with a step.
    pairs = F.pad(x, (0, 0, 1, 1)).reshape(batch, channels, half + 1, 2 * width)
    odd, even = pairs[:, :, :, :width], pairs[:, :, :, width:]  # the rows 2r - 1 and 2r, r = 0..half
    d0, d1, d2, d3 = odd[:, :, :half], even[:, :, :half], odd[:, :, 1:], even[:, :, 1:]
    parts = [d0 - d2, d1 + d2, d2 - d1, d1 - d3]
    # m_1 stands in both results with +, so that the bias is added there.
    m0, m1, m2, m3 = (
        F.conv2d(part, kernel, bias if index == 1 else None, padding=(0, 1))
        for index, (part, kernel) in enumerate(zip(parts, kernels, strict=True))
    )
    joined = torch.cat([m0 + (m1 + m2), m1 - m2 - m3], dim=3)
    return joined.reshape(batch, -1, height, width)


def _site(module: fx.GraphModule, node: fx.Node) -> RowConvolution | None:
    """The parts of a convolution that is worth rewriting, None otherwise."""
    x, kernel, bias, stride, padding, dilation, groups = (*node.args, *DEFAULTS[len(node.args) - 2 :])
    weight, sizes = constant(module, kernel), shape(x)
    if weight is None or weight.shape[2:] != (3, 3) or groups != 1 or node.kwargs:
        return None
    if [_pair(value) for value in (stride, padding, dilation)] != [(1, 1)] * 3:
        return None
    if sizes is None or not all(isinstance(size, int) for size in sizes) or sizes[2] % 2:
        return None
    if sizes[2] * sizes[3] < LEAST_PIXELS or min(weight.shape[:2]) < LEAST_CHANNELS:
        return None
    return RowConvolution(x, weight, bias, (sizes[0], sizes[1], sizes[2], sizes[3]), str(kernel.target))


DEFAULTS = (None, [1, 1], [0, 0], [1, 1], 1)  # of aten.conv2d's arguments from the bias on


def _pair(value: Any) -> tuple[int, int]:
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return (numbers * 2)[:2]
