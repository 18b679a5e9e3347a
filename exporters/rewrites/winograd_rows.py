"""3x3 convolution -> four 1x3 convolutions of half the rows: Winograd's F(2, 3) over the rows, 6 products for 9.

    y_2r     = m_0 + m_1 + m_2        m_0 = (d_0 - d_2) g_0     m_1 = (d_1 + d_2) (g_0 + g_1 + g_2) / 2
    y_2r+1   = m_1 - m_2 - m_3        m_3 = (d_1 - d_3) g_2     m_2 = (d_2 - d_1) (g_0 - g_1 + g_2) / 2

(arXiv:1509.09308, Eq. 5; d_0..d_3 are the rows 2r-1..2r+2 of x, g_0..g_2 the rows of the kernel, and a product is a
1x3 convolution along the row.) XNNPACK runs 3x3 convolutions at the speed of its matrix product and has no Winograd
form, so that only fewer products make them faster. In one dimension there are no tiles to gather: rows are split and
joined by slices and views that are free in its layout, and the sums cost a tenth of what they save. The weights grow
from 9 to 12 numbers; a layer of a larger image saves more products with each, and comes first.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgegen.exporters.growth import Layer, growth_of
from edgegen.exporters.rewrites._graph import (
    ATEN,
    Convolution,
    calls,
    constant,
    convolution,
    finish,
    in_place_of,
    is_call,
    shape,
    store,
)

# Where it pays, measured with XNNPACK on x86-64 (AVX-512, one thread): the sums weigh less the more channels there are.
LEAST_PIXELS, LEAST_CHANNELS = 256, 64
MOST_GROWTH = 0.1  # of all weights; folding the time has removed some 8 % of them before
FREE_GROWTH = 1 << 21  # bytes: small networks, whose files weigh less than the runtime, grow by up to a third


def rewrite(module: fx.GraphModule) -> None:
    """Replace the 3x3 convolutions of `module` that are worth it, in place, the largest images first."""
    sites = {node: convolution(module, node) for node in calls(module, ATEN.conv2d.default)}
    chosen = _affordable(module, {node: site for node, site in sites.items() if site is not None and _pays(site)})
    tracer = fx.proxy.GraphAppendingTracer(module.graph)
    parts: dict[Any, list[Any]] = {}

    def parts_of(x: fx.Node, padding: tuple[int, int]) -> list[Any]:
        """Made once, of each tensor of a concatenation: dense blocks read the same ones again and again."""
        key = x, padding
        if key not in parts and is_call(x, ATEN.cat.default) and x.args[1:] == (1,):
            pieces = [parts_of(piece, padding) for piece in x.args[0]]
            parts[key] = [torch.cat(list(part), dim=1) for part in zip(*pieces, strict=True)]
        elif key not in parts:
            parts[key] = row_parts(fx.Proxy(x, tracer), shape(x), padding[0])
        return parts[key]

    for node, site in chosen.items():  # in the order of the graph: what is made here may be read further on
        kernels = [
            fx.Proxy(store(module, f"{site.name}_rows".replace(".", "_"), kernel, before=node), tracer)
            for kernel in row_kernels(site.weight)
        ]
        with in_place_of(module, node):
            bias = None if site.bias is None else fx.Proxy(site.bias, tracer)
            y = convolve(parts_of(node.args[0], site.padding), kernels, bias, site)
        y.node.meta.update(node.meta)
        node.replace_all_uses_with(y.node)
        module.graph.erase_node(node)
    finish(module)


def row_kernels(weight: Tensor) -> list[Tensor]:
    """The kernels of m_0..m_3, each (outputs, inputs, 1, 3), of a kernel (outputs, inputs, 3, 3)."""
    g0, g1, g2 = (weight.double()[:, :, row : row + 1] for row in range(3))
    kernels = [g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2]
    return [kernel.to(weight.dtype) for kernel in kernels]


def row_parts(x: Any, sizes: Any, padding: int) -> list[Any]:
    """What m_0..m_3 convolve, (batch, channels, rows / 2, width), of x (batch, channels, height, width)."""
    batch, channels, height, width = sizes
    half = height // 2 + padding - 1
    # Two rows side by side in one: cutting it gives every other row; XNNPACK has no slice with a step.
    padded = F.pad(x, (0, 0, padding, padding)) if padding else x
    pairs = padded.reshape(batch, channels, half + 1, 2 * width)
    odd, even = pairs[:, :, :, :width], pairs[:, :, :, width:]  # with padding the rows 2r - 1 and 2r, r = 0..half
    d0, d1, d2, d3 = odd[:, :, :half], even[:, :, :half], odd[:, :, 1:], even[:, :, 1:]
    return [d0 - d2, d1 + d2, d2 - d1, d1 - d3]


def convolve(parts: list[Any], kernels: list[Any], bias: Any, site: Convolution) -> Any:
    """The convolution `site` (batch, outputs, height, width) of the parts of its input."""
    # m_1 stands in both results with +, so that the bias is added there.
    m0, m1, m2, m3 = (
        F.conv2d(part, kernel, bias if index == 1 else None, padding=(0, site.padding[1]))
        for index, (part, kernel) in enumerate(zip(parts, kernels, strict=True))
    )
    joined = torch.cat([m0 + (m1 + m2), m1 - m2 - m3], dim=3)
    return joined.reshape(site.sizes[0], len(site.weight), *site.result_size)


def _affordable(module: fx.GraphModule, sites: dict[fx.Node, Convolution]) -> dict[fx.Node, Convolution]:
    """Those that the growth of the weights allows, in their order."""
    weights = {node.target: constant(module, node) for node in module.graph.nodes if node.op == "get_attr"}
    numbers = sum(weight.numel() for weight in weights.values() if weight is not None)
    layers = {
        node: Layer(site.name.removesuffix(".weight"), 4 * site.weight.numel() // 3, site.sizes[2] * site.sizes[3])
        for node, site in sites.items()
    }
    most = max(FREE_GROWTH, int(MOST_GROWTH * 4 * numbers))
    chosen = growth_of(module).choose(layers, rewrite="winograd_rows", most=most)
    return {node: site for node, site in sites.items() if node in set(chosen)}


def _pays(site: Convolution) -> bool:
    """Whether it is a convolution that this form computes, in less time."""
    if site.weight.shape[2:] != (3, 3) or not site.is_dense or site.padding not in ((0, 0), (1, 1)):
        return False
    rows, columns = site.result_size
    return rows % 2 == 0 and rows * columns >= LEAST_PIXELS and min(site.weight.shape[:2]) >= LEAST_CHANNELS
