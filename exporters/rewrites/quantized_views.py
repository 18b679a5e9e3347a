"""Q(view(DQ(q))) -> view(DQ(q)): numbers that are on the grid already are not rounded to it once more.

XNNPACK's quantizer puts a rounding behind every view of 8-bit numbers, so that views stay in 8 bits there. coremltools
can express a view of six axes (a transformer's patches, back to an image) in fewer, but only where
nothing is in between. A view moves numbers and changes none, so that rounding with the same scale changes nothing.
"""

from typing import Any

import torch
from torch import fx

from edgegen.exporters.rewrites._graph import ATEN, calls, finish, is_call

VIEWS = (
    ATEN.reshape.default,
    ATEN.view.default,
    ATEN.permute.default,
    ATEN.transpose.int,
    ATEN.flatten.using_ints,
    ATEN.unsqueeze.default,
    ATEN.squeeze.dim,
    ATEN.slice.Tensor,
)


def rewrite(module: fx.GraphModule) -> None:
    """Take out every such rounding of `module`, in place."""
    if not any("quantized_decomposed" in str(node.target) for node in module.graph.nodes):
        return  # the operators are not even registered where nothing is quantized
    ops: Any = torch.ops.quantized_decomposed
    back, there = ops.dequantize_per_tensor.default, ops.quantize_per_tensor.default
    for node in calls(module, back):
        rounded = node.args[0]
        if not is_call(rounded, there) or rounded.args[1:] != node.args[1:]:
            continue
        source = values = rounded.args[0]
        while is_call(source, *VIEWS):
            source = source.args[0]
        if source is not values and is_call(source, back) and source.args[1:] == node.args[1:]:
            node.replace_all_uses_with(values)
    finish(module)
