"""x + s, x - s, x * s, x / s of an image with a number -> the same with a constant of shape (1, 1, 1, 1).

ExecuTorch makes the number a constant without axes, and XNNPACK's layout pass then transposes the image out of the
convolutions' channels-last layout and back, since only four axes have a layout: two passes over memory for each
scaling. A division becomes the product with 1 / s, which differs by the rounding of 1 / s.
"""

import torch
from torch import fx

from edgegen.exporters.rewrites._graph import ATEN, calls, finish, replace, shape, store

OPERATIONS = {
    ATEN.add.Tensor: ATEN.add.Tensor,
    ATEN.sub.Tensor: ATEN.sub.Tensor,
    ATEN.mul.Tensor: ATEN.mul.Tensor,
    ATEN.div.Tensor: ATEN.mul.Tensor,
}


def rewrite(module: fx.GraphModule) -> None:
    """Replace every such operation on float32 images (batch, channels, height, width) of `module`, in place."""
    for node in calls(module, *OPERATIONS):
        x, number = node.args[0], node.args[1]
        if not isinstance(number, (int, float)) or node.kwargs or len(shape(x) or ()) != 4:
            continue
        if x.meta["val"].dtype != torch.float32:
            continue
        value = 1.0 / number if node.target is ATEN.div.Tensor and number else float(number)
        if node.target is ATEN.div.Tensor and not number:
            continue
        constant = store(module, "scalar", torch.full((1, 1, 1, 1), value), before=node)
        replace(module, node, OPERATIONS[node.target], x, constant)
    finish(module)
