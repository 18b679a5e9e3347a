"""The layers of a captured program that carry weights: convolutions and dense layers, by the names of their weights."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, fx

NARROW = 16  # channels
LAYER_GROUPS = ("dense layers", "1x1 convolutions", "narrow convolutions", "the first and last layer")


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

    def inputs_and_outputs(self, module: "fx.GraphModule") -> tuple[int, int]:
        """Its channels; of a convolution in groups, those of one output and all outputs."""
        sizes = tensor_of(module, self.target).shape
        return sizes[self.inputs], sizes[self.axis]


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


def layer_groups(module: "fx.GraphModule") -> dict[str, tuple[str, ...]]:
    """Names of layers that may be slower in 8 bits than in float, by what they have in common; no group is all layers.

    Their conversions cost as much as those of large layers, and their products save less.
    """
    layers = layers_of(module)
    kernels = {layer.name: tuple(tensor_of(module, layer.target).shape[2:]) for layer in layers}
    narrow = {layer.name for layer in layers if min(layer.inputs_and_outputs(module)) < NARROW}
    members: tuple[list[str], ...] = (
        [name for name, kernel in kernels.items() if not kernel],
        [name for name, kernel in kernels.items() if kernel and set(kernel) == {1}],
        [name for name, kernel in kernels.items() if kernel and name in narrow],
        [layers[0].name, layers[-1].name] if layers else [],
    )
    distinct: dict[tuple[str, ...], str] = {}
    for group, names in zip(LAYER_GROUPS, members, strict=True):
        distinct.setdefault(tuple(dict.fromkeys(names)), group)
    return {group: names for names, group in distinct.items() if names and len(names) < len(kernels)}


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
