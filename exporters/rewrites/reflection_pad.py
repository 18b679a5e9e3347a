"""Reflected or repeated borders -> slices and concatenations: XNNPACK has these, and pads with constants alone.

    reflect(x, p) = [x_p .. x_1, x_0 .. x_(n-1), x_(n-2) .. x_(n-1-p)],   repeat(x, p) = [x_0 .. x_0, x, x_(n-1) ..]

Over the rows first, then over the columns. XNNPACK's partitioner takes no tensor twice in one concatenation; every
slice is a tensor of its own.
"""

from typing import Any

import torch
from torch import fx

from edgegen.exporters.rewrites._graph import ATEN, Border, border, calls, finish, in_place_of

PADS = (ATEN.pad.default, ATEN.reflection_pad2d.default, ATEN.replication_pad2d.default)


def rewrite(module: fx.GraphModule) -> None:
    """Replace, in place, every such border of images (batch, channels, height, width) of known size."""
    for node in calls(module, *PADS):
        site = border(node)
        if site is None:
            continue
        with in_place_of(module, node):
            y: Any = pad(fx.Proxy(site.x, fx.proxy.GraphAppendingTracer(module.graph)), site)
        y.node.meta.update(node.meta)
        node.replace_all_uses_with(y.node)
        module.graph.erase_node(node)
    finish(module)


def pad(x: Any, site: Border) -> Any:
    """x (batch, channels, height, width) with the pixels of `site` around it."""
    left, right, top, bottom = site.padding
    height, width = site.x.meta["val"].shape[2:]
    step = 1 if site.mode == "reflect" else 0
    for axis, size, before, after in ((2, height, top, bottom), (3, width, left, right)):
        first = [i * step for i in range(before, 0, -1)]
        last = [size - 1 - i * step for i in range(1, after + 1)]
        ends = [_joined([x.narrow(axis, i, 1) for i in pixels], axis) if pixels else None for pixels in (first, last)]
        x = _joined([part for part in (ends[0], x, ends[1]) if part is not None], axis)
    return x


def _joined(parts: list[Any], axis: int) -> Any:
    return torch.cat(parts, dim=axis) if len(parts) > 1 else parts[0]
