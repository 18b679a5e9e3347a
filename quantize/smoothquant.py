"""Smoothing: moves part of the size of large activation channels into the weights that read them.

SmoothQuant (G. Xiao and others, arXiv:2211.10438, equations 3 and 4): Y = (X diag(s)^-1) (diag(s) W) with
s_j = max |X_j|^a / max |W_j|^(1 - a), the largest over calibration's noise. Where a norm's weight and bias give X, they
are divided by s at no cost; elsewhere it is one multiplication before the layer, which stays float.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from edgegen.quantize.calibration import Batches
from edgegen.quantize.layers import Layer, plain_layers, tensor_of

if TYPE_CHECKING:
    from collections.abc import Iterable

STRENGTH = 0.5  # the paper's a
SMALLEST = 1e-5  # of a channel that is never used


def smooth(module: "fx.GraphModule", calibration: Batches) -> int:
    """Scale a captured program's module, in place; its function stays. Returns the number of added multiplications."""
    read: dict[fx.Node, list[Layer]] = {}
    for layer in plain_layers(module):
        source: Any = layer.node.args[0]
        if source.op == "call_function":
            read.setdefault(source, []).append(layer)
    largest = _largest(module, {source: _axis(layers[0]) for source, layers in read.items()}, calibration)
    added = 0
    with torch.no_grad():
        for source, layers in read.items():
            weights = torch.stack([_of_inputs(tensor_of(module, layer.target)) for layer in layers]).amax(0)
            size = largest[source.name].clamp_min(SMALLEST) ** STRENGTH
            scale = size / weights.clamp_min(SMALLEST) ** (1 - STRENGTH)
            for layer in layers:
                weight = tensor_of(module, layer.target)
                weight.mul_(scale.reshape(1, -1, *[1] * (weight.ndim - 2)))
            if not _into_norm(module, source, layers, scale):
                _multiply(module, source, layers, 1 / scale)
                added += 1
    module.recompile()
    return added


def _axis(layer: Layer) -> int:
    """Of a layer's input, which is its channels."""
    return -1 if layer.node.target is torch.ops.aten.linear.default else 1


def _of_inputs(weight: Tensor) -> Tensor:
    return weight.abs().movedim(1, 0).flatten(1).amax(1)


def _largest(module: "fx.GraphModule", axes: "dict[fx.Node, int]", calibration: Batches) -> dict[str, Tensor]:
    """Of each channel of some nodes, the largest magnitude."""
    sizes: dict[str, Tensor] = {}

    class ChannelMaxima(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in axes:
                size = value.abs().movedim(axes[n], 0).flatten(1).amax(1)
                sizes[n.name] = torch.maximum(sizes.get(n.name, size), size)
            return value

    with torch.no_grad():
        for batch in calibration:
            ChannelMaxima(module).run(*(torch.from_numpy(values) for values in batch.values()))
    return sizes


def _into_norm(module: "fx.GraphModule", source: fx.Node, layers: "Iterable[Layer]", scale: Tensor) -> bool:
    """Divides the weight and bias of the norm that gives `source` by `scale`; False where it cannot."""
    norms: dict[Any, int] = {torch.ops.aten.group_norm.default: 1, torch.ops.aten.layer_norm.default: -1}
    readers = list(layers)
    if norms.get(source.target) != _axis(readers[0]) or set(source.users) != {layer.node for layer in readers}:
        return False
    parts: list[Any] = [source.args[index] if len(source.args) > index else None for index in (2, 3)]
    if any(part is None or part.op != "get_attr" or len(part.users) != 1 for part in parts):
        return False
    tensors = [tensor_of(module, part.target) for part in parts]
    if any(tensor.shape != scale.shape for tensor in tensors):
        return False
    for tensor in tensors:
        tensor.div_(scale)
    return True


def _multiply(module: "fx.GraphModule", source: fx.Node, layers: "Iterable[Layer]", factor: Tensor) -> None:
    name = f"smoothing_{source.name}"
    readers = list(layers)
    shape = [-1] if _axis(readers[0]) == -1 else [-1, *[1] * (tensor_of(module, readers[0].target).ndim - 2)]
    module.register_buffer(name, factor.reshape(shape))
    with module.graph.inserting_after(source):
        constant = module.graph.get_attr(name)
    with module.graph.inserting_after(constant):
        product = module.graph.call_function(torch.ops.aten.mul.Tensor, (source, constant))
    for layer in readers:
        layer.node.replace_input_with(source, product)
