"""BatchNorm behind a convolution or a dense layer, in evaluation mode -> that layer with other weights.

    g (W * x + b - mean) / sqrt(var + eps) + c  =  (a W) * x + (a (b - mean) + c),    a = g / sqrt(var + eps)

per output channel (arXiv:1502.03167, section 3.1). Here, once for all runtimes: vendors' passes do the same for plain
convolutions and fail at transposed ones in groups, and a quantization must see the weights that the file will have.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

ATEN = torch.ops.aten
# Operator -> the place of `groups` among its arguments where the output's channels are not the weight's first axis.
LAYERS: dict[Any, int | None] = {
    ATEN.linear.default: None,
    ATEN.conv1d.default: None,
    ATEN.conv2d.default: None,
    ATEN.conv3d.default: None,
    ATEN.conv_transpose1d.default: 6,
    ATEN.conv_transpose2d.input: 6,
    ATEN.conv_transpose3d.input: 6,
}


def fold_batch_norms(module: fx.GraphModule) -> None:
    """Fold every such norm of a captured graph, in place; a layer whose own output is read elsewhere keeps its norm."""
    for node in list(module.graph.nodes):
        norm = _norm(module, node)
        if norm is None:
            continue
        layer, scale, mean, shift = norm
        weight, bias = _value(module, layer.args[1]), _value(module, layer.args[2]) if len(layer.args) > 2 else None
        if weight is None or (len(layer.args) > 2 and layer.args[2] is not None and bias is None):
            continue
        groups = LAYERS[layer.target]
        count = 1 if groups is None or len(layer.args) <= groups else int(layer.args[groups])
        scaled = _scaled(weight.double(), scale, groups=None if groups is None else count)
        shifted = scale * ((0.0 if bias is None else bias.double()) - mean) + shift
        name = str(layer.args[1].target)
        stem = name.removesuffix("weight") if name.endswith("weight") else f"{name}_"
        new = [_store(module, layer, n, v.to(weight.dtype)) for n, v in ((name, scaled), (f"{stem}bias", shifted))]
        layer.args = (layer.args[0], *new, *layer.args[3:])
        layer.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(layer)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _norm(module: fx.GraphModule, node: fx.Node) -> tuple[Any, Tensor, Tensor, Tensor] | None:
    """The layer before a norm, and the norm's a, mean and c in float64; None where `node` is no norm to fold."""
    if node.target is not ATEN.batch_norm.default:
        return None
    arguments: Any = node.args
    layer, weight, bias, mean, var, training, _, eps, *_ = arguments
    if training or not isinstance(layer, fx.Node) or layer.target not in LAYERS or layer.kwargs or len(layer.users) > 1:
        return None
    if layer.target is ATEN.linear.default and layer.meta["val"].ndim != 2:  # the norm's channels are another axis
        return None
    average, variance, gain, shift = (_value(module, part) for part in (mean, var, weight, bias))
    computed = (weight is not None and gain is None) or (bias is not None and shift is None)
    if average is None or variance is None or computed:
        return None
    average = average.double()
    scale = torch.rsqrt(variance.double() + eps) * (1.0 if gain is None else gain.double())
    return layer, scale, average, torch.zeros_like(average) if shift is None else shift.double()


def _scaled(weight: Tensor, scale: Tensor, *, groups: int | None) -> Tensor:
    """`weight` times the scale of its output channel: axis 0, or in `groups` (inputs, outputs / groups, ...) axis 1."""
    if groups is None:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    parts = weight.reshape(groups, -1, *weight.shape[1:])
    return (parts * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _value(module: fx.GraphModule, node: Any) -> Tensor | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = operator.attrgetter(str(node.target))(module)
    return value.detach() if isinstance(value, Tensor) else None


def _store(module: fx.GraphModule, layer: fx.Node, name: str, value: Tensor) -> fx.Node:
    """A node that reads `value`, under the layer's own `name` unless another layer reads that."""
    readers = [node for node in module.graph.nodes if node.op == "get_attr" and node.target == name]
    others = [user for reader in readers for user in reader.users if user is not layer]
    while others or (not readers and _exists(module, name)):
        name, others = f"{name}_folded", []
        others = [node for node in module.graph.nodes if node.op == "get_attr" and node.target == name]
    prefix, _, last = name.rpartition(".")
    parent: Any = module.get_submodule(prefix) if prefix else module
    parent.register_parameter(last, nn.Parameter(value.contiguous(), requires_grad=False))
    with module.graph.inserting_before(layer):
        node = module.graph.get_attr(name)
    node.meta["val"] = value
    return node


def _exists(module: fx.GraphModule, name: str) -> bool:
    try:
        operator.attrgetter(name)(module)
    except AttributeError:
        return False
    return True
