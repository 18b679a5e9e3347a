"""Convolutions with padding="same" or "valid" in numbers, as every quantization, rewrite and runtime reads them.

A sum of (kernel - 1) x dilation zeros that is odd has one more behind than in front (torch.nn.functional.conv2d); it is
added by a padding before the convolution.
"""

from typing import Any

import torch
from torch import fx

ATEN = torch.ops.aten
NUMBERED: dict[Any, Any] = {
    ATEN.conv1d.padding: ATEN.conv1d.default,
    ATEN.conv2d.padding: ATEN.conv2d.default,
    ATEN.conv3d.padding: ATEN.conv3d.default,
}
DEFAULTS = (None, 1, "valid", 1, 1)  # bias, stride, padding, dilation, groups


def in_numbers(graph: fx.Graph) -> None:
    """Changes every such convolution of a captured graph, in place."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in NUMBERED:
            _change(graph, node)


def _change(graph: fx.Graph, node: fx.Node) -> None:
    arguments: Any = (*node.args, *DEFAULTS[len(node.args) - 2 :])
    x, weight, bias, stride, padding, dilation, groups = arguments
    kernel = weight.meta["val"].shape[2:]
    strides, steps = _each_axis(stride, len(kernel)), _each_axis(dilation, len(kernel))
    zeros = [step * (size - 1) if padding == "same" else 0 for step, size in zip(steps, kernel, strict=True)]
    uneven = [count % 2 for count in zeros]
    if any(uneven):
        behind = [amount for count in reversed(uneven) for amount in (0, count)]
        with graph.inserting_before(node):
            padded = graph.call_function(ATEN.pad.default, (x, behind))
        value = x.meta["val"]  # of sizes that may be symbols: an operator run on it would guard them
        sizes = [size + more for size, more in zip(value.shape, (0, 0, *uneven), strict=True)]
        padded.meta.update({**node.meta, "val": value.new_empty(sizes)})
        x = padded
    node.target = NUMBERED[node.target]
    node.args = (x, weight, bias, strides, [count // 2 for count in zeros], steps, groups)


def _each_axis(value: Any, axes: int) -> list[Any]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values
