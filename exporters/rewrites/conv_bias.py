"""conv(x, W, b) + c -> conv(x, W, b + c) for a constant c of one number a channel: one pass fewer over the image.

Where the time is folded, every block's time shift is such a constant. Helps every runtime.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, constant, finish, is_call, replace, store

CONVOLUTIONS = {ATEN.conv1d.default: 1, ATEN.conv2d.default: 2, ATEN.conv3d.default: 3}


def rewrite(module: fx.GraphModule) -> None:
    """Fold every such sum of `module`, in place; a convolution whose own output is read elsewhere stays."""
    for node in calls(module, ATEN.add.Tensor):
        for convolution, other in ((node.args[0], node.args[1]), (node.args[1], node.args[0])):
            bias = _bias(module, convolution, other)
            if bias is not None and node.kwargs.get("alpha", 1) == 1:
                x, weight, _, *rest = (*convolution.args, None)[: max(3, len(convolution.args))]
                new = store(module, f"{weight.target}_bias".replace(".", "_"), bias, before=node)
                replace(module, node, convolution.target, x, weight, new, *rest)
                break
    finish(module)


def _bias(module: fx.GraphModule, convolution: Any, other: Any) -> Tensor | None:
    """b + c where `convolution` is a convolution that nothing else reads and `other` such a constant, else None."""
    if not is_call(convolution, *CONVOLUTIONS) or len(convolution.users) != 1 or convolution.kwargs:
        return None
    weight, shift = constant(module, convolution.args[1]), constant(module, other)
    own = convolution.args[2] if len(convolution.args) > 2 else None
    bias = None if own is None else constant(module, own)
    if weight is None or shift is None or (own is not None and bias is None):
        return None
    channels, axes = len(weight), CONVOLUTIONS[convolution.target]
    if tuple(shift.shape) not in ((1, channels, *[1] * axes), (channels, *[1] * axes)):
        return None
    with torch.no_grad():
        return shift.reshape(channels) + (0.0 if bias is None else bias)
