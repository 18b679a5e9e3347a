"""A 3x3 convolution of an image upsampled twofold -> nine 1x1 convolutions of the small image: 9 products for 36.

In one dimension, with x_-1, x_0, x_1 of the small image, kernel g and s = g_0 + g_1 + g_2:

    y_0 = g_0 x_-1 + (g_1 + g_2) x_0 = s x_0 - g_0 (x_0 - x_-1)
    y_1 = (g_0 + g_1) x_0 + g_2 x_1  = s x_0 + g_2 (x_1 - x_0)

and in two dimensions the same for rows and columns: x_0, the two differences, or their products, times s, g_0 or g_2.
The nine kernels are as large as the 3x3 kernel was, and the large image is written once, at the end. The four
phases are joined by concatenation and views that are free in XNNPACK's channels-last layout (its own transposed
convolution, the 4x4 kernel that does the same in one operator, took longer than the plain form).

    conv_1x1(upsample(x)) = upsample(conv_1x1(x)): a 1x1 convolution is done first, with r^2 times fewer products.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import (
    ATEN,
    Convolution,
    border,
    calls,
    convolution,
    finish,
    in_place_of,
    is_call,
    replace,
    shape,
    store,
)

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the large image: row 2i + a, column 2j + b


def rewrite(module: fx.GraphModule) -> None:
    """Replace every 3x3 or 1x1 convolution with stride 1 and "same" padding that reads nearest upsampling, in place."""
    for node in calls(module, ATEN.conv2d.default):
        site = convolution(module, node)
        upsampled = site and _upsampled(site.x)
        if site is None or upsampled is None or not _fits(site, upsampled):
            continue
        x, sizes = upsampled.node.args[0], upsampled.sizes
        if site.weight.shape[-1] == 1:
            with in_place_of(module, node):
                small = module.graph.call_function(ATEN.conv2d.default, (x, *node.args[1:]))
            small.meta["val"] = x.meta["val"].new_empty(sizes[0], len(site.weight), *sizes[2:])
            replace(module, node, ATEN.upsample_nearest2d.vec, small, *upsampled.node.args[1:])
            continue
        tracer = fx.proxy.GraphAppendingTracer(module.graph)
        kernels = {
            key: fx.Proxy(store(module, f"{site.name}_{key}".replace(".", "_"), kernel, before=node), tracer)
            for key, kernel in point_kernels(site.weight).items()
        }
        with in_place_of(module, node):
            bias = None if site.bias is None else fx.Proxy(site.bias, tracer)
            image: Any = fx.Proxy(x, tracer)
            y = convolve(image, kernels, bias, sizes, repeated=upsampled.repeated)
        y.node.meta.update(node.meta)
        node.replace_all_uses_with(y.node)
        module.graph.erase_node(node)
    finish(module)


def point_kernels(weight: Tensor) -> dict[str, Tensor]:
    """The kernels (outputs, inputs, 1, 1) of a kernel (outputs, inputs, 3, 3), by row and column: "ss", "s0", .. "22".

    "s" is the sum over the axis. The signs of the differences, taken as x_-1 - x_0 on both sides, are in the kernels.
    """
    full = weight.double()
    rows = {"s": full.sum(2, keepdim=True), "0": full[:, :, :1], "2": -full[:, :, 2:]}
    kernels: dict[str, Tensor] = {}
    for row, values in rows.items():
        columns = {"s": values.sum(3, keepdim=True), "0": values[..., :1], "2": -values[..., 2:]}
        kernels |= {row + column: kernel.to(weight.dtype) for column, kernel in columns.items()}
    return kernels


def convolve(
    x: Any, kernels: dict[str, Any], bias: Any, sizes: tuple[int, int, int, int], *, repeated: bool = False
) -> Any:
    """The 3x3 convolution of the upsampled x (batch, inputs, h, w) -> (batch, outputs, 2 h, 2 w).

    Around x are zeros, or its own border pixels where they are `repeated`.
    """
    batch, _, height, width = sizes
    down, across, both = _differences(x, repeated)
    tap = "02"
    middle = F.conv2d(x, kernels["ss"], bias)
    rows = [middle + F.conv2d(down[:, :, a : a + height], kernels[tap[a] + "s"]) for a in (0, 1)]
    columns = [F.conv2d(across[..., b : b + width], kernels["s" + tap[b]]) for b in (0, 1)]
    phases = []
    for a, b in PHASES:
        corner = F.conv2d(both[:, :, a : a + height, b : b + width], kernels[tap[a] + tap[b]])
        phases.append((rows[a] + columns[b] + corner).reshape(batch, -1, height * width, 1))
    # [h w, 2, c] = [h, 2 w, c]: the columns interleaved; side by side [h, 2 (2 w), c] = [2 h, 2 w, c]: the rows.
    lines = [torch.cat(phases[first : first + 2], dim=3).reshape(batch, -1, height, 2 * width) for first in (0, 2)]
    return torch.cat(lines, dim=3).reshape(batch, -1, 2 * height, 2 * width)


def _differences(x: Any, repeated: bool) -> tuple[Any, Any, Any]:
    """x_-1 - x_0 over the rows (h + 1, w), over the columns (h, w + 1), and over both (h + 1, w + 1)."""
    if repeated:  # nothing changes across the border
        rows = x[:, :, :-1] - x[:, :, 1:]
        columns = x[..., :-1] - x[..., 1:]
        both = rows[..., :-1] - rows[..., 1:]
        return F.pad(rows, (0, 0, 1, 1)), F.pad(columns, (1, 1, 0, 0)), F.pad(both, (1, 1, 1, 1))
    padded = F.pad(x, (1, 1, 1, 1))
    down = padded[:, :, :-1] - padded[:, :, 1:]  # (h + 1, w + 2)
    across = padded[:, :, 1:-1, :-1] - padded[:, :, 1:-1, 1:]
    return down[..., 1:-1], across, down[..., :-1] - down[..., 1:]


@dataclass(frozen=True)
class UpsampledImage:
    """The `node` of a small image of `sizes` upsampled by whole `factors`, and the `padding` around it.

    Where it is `repeated`, these are its own pixels: of an image of twice its size, one pixel reflected or repeated is
    the border of the small one, repeated.
    """

    node: Any
    sizes: tuple[int, int, int, int]
    factors: tuple[int, int]
    padding: tuple[int, ...]
    repeated: bool


def _upsampled(node: Any) -> UpsampledImage | None:
    """What a convolution reads, where that is an image upsampled by whole factors, with or without a border."""
    around = border(node)
    padding, node = (around.padding, around.x) if around else ((0,) * 4, node)
    before, after = shape(node.args[0]) if is_call(node, ATEN.upsample_nearest2d.vec) else None, shape(node)
    if before is None or after is None or not all(isinstance(size, int) for size in before + after):
        return None
    if after[2] % before[2] or after[3] % before[3]:
        return None
    factors = (after[2] // before[2], after[3] // before[3])
    sizes = (before[0], before[1], before[2], before[3])
    return UpsampledImage(node, sizes, factors, padding, repeated=around is not None)


def _fits(site: Convolution, image: UpsampledImage) -> bool:
    """Whether the convolution can run on the small image."""
    kernel = tuple(site.weight.shape[2:])
    if kernel == (1, 1):
        return site.is_dense and site.padding == (0, 0) and not image.repeated
    own, around = ((0, 0), (1,) * 4) if image.repeated else ((1, 1), (0,) * 4)
    fits = site.padding == own and image.padding == around
    return site.is_dense and kernel == (3, 3) and image.factors == (2, 2) and fits
