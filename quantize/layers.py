"""The layers of a captured program that carry weights: convolutions and dense layers, by the names of their weights."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, fx


@dataclass(frozen=True)
class Layer:
    """`node` computes its args (input, weights, bias, ...); `target` is the weights' place in the module.

    `axis` of the weights is the output's channels, `inputs` the input's.
    """

    name: str
    target: str
    node: "fx.Node"
    axis: int
    inputs: int


def layers_of(module: "fx.GraphModule") -> list[Layer]:
    """In the order in which they run. A prepared program counts as well: its weights come by way of an observer."""
    layers = []
    for node in module.graph.nodes:
        axes = _axes().get(node.target)
        target = None if axes is None else _weights_of(node)
        if axes is not None and target is not None:
            layers.append(Layer(name_of(target), target, node, *axes))
    return layers


def plain_layers(module: "fx.GraphModule") -> list[Layer]:
    """Those whose weights are their own and join every input channel to every output channel, output first."""
    layers = layers_of(module)
    targets = [layer.target for layer in layers]
    groups = [layer.node.args[6] if len(layer.node.args) > 6 else 1 for layer in layers]
    return [
        layer
        for layer, count in zip(layers, groups, strict=True)
        if layer.axis == 0 and count == 1 and targets.count(layer.target) == 1
    ]


def name_of(target: str) -> str:
    """ "net.stem.weight" -> "net.stem"; a layer that a rewrite made keeps the name of what it was."""
    return target.removesuffix("_1x1").removesuffix("_phases").removesuffix(".weight").removesuffix("_weight")


def _weights_of(node: "fx.Node") -> str | None:
    source: Any = node.args[1]
    while source.op in ("call_module", "call_function") and source.args and hasattr(source.args[0], "op"):
        source = source.args[0]
    return source.target if source.op == "get_attr" else None


def macs_of(layer: Layer, weights: int) -> int:
    """Products of one layer of so many weights at batch 1: each weight once at every place of its output.

    Of a transposed convolution, of its input.
    """
    transposed, dense = layer.axis == 1, "linear" in str(layer.node.target)
    counted: Any = layer.node.args[0] if transposed else layer.node
    shape = counted.meta["val"].shape
    places = shape[1:-1] if dense else shape[2:]
    return weights * math.prod(map(int, places))


def tensor_of(module: "fx.GraphModule", target: str) -> "Tensor":
    """The parameter or buffer behind a get_attr node's target."""
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    return value  # type: ignore[no-any-return]


def _axes() -> dict[Any, tuple[int, int]]:
    """By operator, which axes of its weights are the output's and the input's channels."""
    import torch

    aten = torch.ops.aten
    plain = (aten.conv1d.default, aten.conv2d.default, aten.linear.default)
    transposed = (aten.conv_transpose1d.default, aten.conv_transpose2d.input)
    return dict.fromkeys(plain, (0, 1)) | dict.fromkeys(transposed, (1, 0))
