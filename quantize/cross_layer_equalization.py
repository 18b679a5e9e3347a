"""Cross-layer equalization: balances the weights of two layers in a row, for each channel between them.

M. Nagel and others, "Data-free quantization through weight equalization and bias correction", arXiv:1906.04721, section
4.1: for f with f(s x) = s f(x), s > 0, W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1), and with equation 11's S a
channel's weights are as large before as behind. It needs pairs with ReLU, LeakyReLU or nothing between them: decoders
and super-resolution networks have them, U-Nets of GroupNorm and SiLU have none.
"""

from typing import TYPE_CHECKING, Any

import torch

from edgegen.quantize.layers import Layer, plain_layers, tensor_of

if TYPE_CHECKING:
    from torch import fx

ROUNDS = 20  # a layer is the second of one pair and the first of the next


def equalize(module: "fx.GraphModule") -> int:
    """Scale the weights of a captured program's module, in place; its function stays. Returns the number of pairs."""
    layers = {layer.node: layer for layer in plain_layers(module)}
    pairs = [(layer, after) for layer in layers.values() if (after := _after(layer, layers)) is not None]
    with torch.no_grad():
        for _ in range(ROUNDS):
            for first, second in pairs:
                _share(module, first, second)
    return len(pairs)


def _after(layer: Layer, layers: "dict[fx.Node, Layer]") -> Layer | None:
    """The only layer that reads the output of `layer`, through homogeneous operators alone, or None."""
    node, homogeneous = layer.node, _homogeneous()
    while len(node.users) == 1:
        (user,) = node.users
        if user in layers:
            other = layers[user]
            return other if other.node.target == layer.node.target and user.args[0] is node else None
        if user.target not in homogeneous:
            return None
        node = user
    return None


def _homogeneous() -> set[Any]:
    """Operators with f(s x) = s f(x) for a positive s of each channel."""
    aten = torch.ops.aten
    return {
        aten.relu.default,
        aten.relu_.default,
        aten.leaky_relu.default,
        aten.leaky_relu_.default,
        aten.upsample_nearest2d.vec,
        aten.upsample_nearest2d.default,
        aten.avg_pool2d.default,
        aten.max_pool2d.default,
        aten.clone.default,
    }


def _share(module: "fx.GraphModule", first: Layer, second: Layer) -> None:
    weight, next_weight = tensor_of(module, first.target), tensor_of(module, second.target)
    before = weight.abs().movedim(first.axis, 0).flatten(1).amax(1)
    behind = next_weight.abs().movedim(second.inputs, 0).flatten(1).amax(1)
    scale = (before / behind).sqrt()
    scale[(before == 0) | (behind == 0)] = 1.0  # a channel that is not used
    weight.div_(_along(scale, weight, first.axis))
    next_weight.mul_(_along(scale, next_weight, second.inputs))
    bias: Any = first.node.args[2] if len(first.node.args) > 2 else None
    if bias is not None:
        tensor_of(module, bias.target).div_(scale)


def _along(values: torch.Tensor, other: torch.Tensor, axis: int) -> torch.Tensor:
    """`values` so that they multiply `other` along one of its axes."""
    return values.reshape([-1 if dim == axis else 1 for dim in range(other.ndim)])
