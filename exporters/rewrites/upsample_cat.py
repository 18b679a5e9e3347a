"""Nearest upsampling by whole factors -> concatenation with itself: pixels along the row, then rows.

    [h, w, c] = [h w, 1, c] -> r copies [h w, r, c] = [h, r w, c] -> r copies [h, r (r w), c] = [r h, r w, c]

Written for the channels-last layout of XNNPACK, where both views are free and a copy moves whole pixels. XNNPACK has
no nearest upsampling, so that each splits the network into two pieces. Its partitioner takes no tensor twice in one
concatenation, hence every further copy is the product with one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgegen.exporters.rewrites._graph import ATEN, calls, finish, in_place_of, shape, store

MOST = 5  # as many tensors XNNPACK concatenates in one go


@dataclass(frozen=True)
class UpsamplingFactors:
    """An image of the sizes (batch, channels, height, width) becomes `down` times as high and `across` as wide."""

    sizes: tuple[int, int, int, int]
    down: int
    across: int


def rewrite(module: fx.GraphModule) -> None:
    """Replace every nearest upsampling by whole factors up to 5, in place."""
    for node in calls(module, ATEN.upsample_nearest2d.vec):
        factors = _factors(node)
        if factors is None:
            continue
        unit = store(module, "one", torch.ones(1, 1, 1, 1), before=node)
        tracer = fx.proxy.GraphAppendingTracer(module.graph)
        with in_place_of(module, node):
            y: Any = upsample(fx.Proxy(node.args[0], tracer), fx.Proxy(unit, tracer), factors)
        y.node.meta.update(node.meta)
        node.replace_all_uses_with(y.node)
        module.graph.erase_node(node)
    finish(module)


def upsample(x: Any, unit: Any, factors: UpsamplingFactors) -> Any:
    """Nearest upsampling of x (batch, channels, height, width); `unit` is a one of shape (1, 1, 1, 1)."""
    batch, channels, height, width = factors.sizes
    width_after = factors.across * width
    pixels = _repeat(x.reshape(batch, channels, height * width, 1), unit, factors.across)
    rows = _repeat(pixels.reshape(batch, channels, height, width_after), unit, factors.down)
    return rows.reshape(batch, channels, factors.down * height, width_after)


def _repeat(x: Any, unit: Any, times: int) -> Any:
    return torch.cat([x, *(x * unit for _ in range(times - 1))], dim=3) if times > 1 else x


def _factors(node: fx.Node) -> UpsamplingFactors | None:
    before, after = shape(node.args[0]), shape(node)
    if before is None or after is None or not all(isinstance(size, int) for size in before + after):
        return None
    down, across = after[2] // before[2], after[3] // before[3]
    is_multiple = (after[2], after[3]) == (down * before[2], across * before[3])
    if not is_multiple or not (1 <= down <= MOST and 1 <= across <= MOST) or down * across == 1:
        return None
    return UpsamplingFactors((before[0], before[1], before[2], before[3]), down, across)
