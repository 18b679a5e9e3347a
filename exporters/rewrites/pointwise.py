"""A dense layer over the channels of an image -> a 1x1 convolution: permute(dense(permute(x))) = conv(x, W).

"Networks in networks" and channels-last linear layers transpose the image twice in memory; runtimes have a 1x1
convolution that needs no transposition, and whose result fuses with its neighbours.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, constant, finish, is_call, replace, shape, store

TO_LAST, TO_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]


@dataclass(frozen=True)
class DenseLayer:
    """x (batch, height, width, channels) times a weight (outputs, channels), plus a bias (outputs,) or none."""

    x: Any
    weight: Tensor
    bias: Tensor | None
    name: str


def rewrite(module: fx.GraphModule) -> None:
    """Replace every such layer of `module`, in place: linear, matmul or einsum, with or without an added bias."""
    for node in calls(module, ATEN.permute.default):
        if list(node.args[1]) != TO_SECOND:
            continue
        dense = _dense(module, node.args[0])
        if dense is None or not is_call(dense.x, ATEN.permute.default) or list(dense.x.args[1]) != TO_LAST:
            continue
        weight = store(module, f"{dense.name}_1x1", dense.weight[:, :, None, None], before=node)
        bias = None if dense.bias is None else store(module, f"{dense.name}_1x1_bias", dense.bias, before=node)
        replace(module, node, ATEN.conv2d.default, dense.x.args[0], weight, bias)
    finish(module)


def _dense(module: fx.GraphModule, node: Any) -> DenseLayer | None:
    """The dense layer that `node` is the result of; None for another operator, or where something else reads a part."""
    if not isinstance(node, fx.Node) or len(node.users) != 1:
        return None
    if is_call(node, ATEN.add.Tensor) and not node.kwargs:
        for inner, other in ((node.args[0], node.args[1]), (node.args[1], node.args[0])):
            dense, bias = _dense(module, inner), constant(module, other)
            if dense is not None and dense.bias is None and bias is not None and bias.shape == dense.weight.shape[:1]:
                return DenseLayer(dense.x, dense.weight, bias, dense.name)
        return None
    x, weight, bias, transposed = _operands(node)
    values, added = constant(module, weight), constant(module, bias)
    if values is None or values.ndim != 2 or len(shape(x) or ()) != 4 or (bias is not None and added is None):
        return None
    return DenseLayer(x, values.T if transposed else values, added, str(weight.target).replace(".", "_"))


def _operands(node: Any) -> tuple[Any, Any, Any, bool]:
    """x, weight, bias and whether the weight is stored as (channels, outputs); x None where this is no dense layer."""
    if is_call(node, ATEN.linear.default):
        x, weight, bias = (*node.args, None)[:3]
        return x, weight, bias, False
    if is_call(node, ATEN.matmul.default):
        return node.args[0], node.args[1], None, True
    if is_call(node, ATEN.einsum.default) and len(node.args[1]) == 2:
        equation = str(node.args[0]).replace(" ", "")
        inputs, _, result = equation.partition("->")
        left, _, right = inputs.partition(",")
        distinct = len(set(left)) == len(left) == 4 and len(result) == 4 and result[3] not in left
        if distinct and result[:3] == left[:3] and right in (left[3] + result[3], result[3] + left[3]):
            return *node.args[1], None, right[0] == left[3]
    return None, None, None, False
