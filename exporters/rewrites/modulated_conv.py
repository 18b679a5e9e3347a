"""A kernel for each sample, scaled by its style, in one grouped convolution -> one kernel and two scalings.

StyleGAN2's convolutions (arXiv:1912.04958, Eq. 1 and 3) make w'_oi = s_i w_oi and w''_oi = w'_oi / sqrt(sum w'^2 + eps)
for each sample, and run a batch as one convolution whose groups are the samples. The same numbers:

    conv(x, d_o s_i w_oi) = d_o conv(s_i x_i, w_oi)            sum_ik (s_i w_oik)^2 = sum_i s_i^2 sum_k w_oik^2

No runtime has groups whose number is the batch, none quantizes a kernel that is computed, and the kernels of a batch
take more memory than its images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, constant, finish, in_place_of, is_call, shape, store

VIEWS = (ATEN.view.default, ATEN.reshape.default, ATEN._unsafe_view.default)
COPIES = (ATEN.clone.default, ATEN.contiguous.default)
BIAS_AND_BEHIND = (None, [1, 1], [0, 0], [1, 1], 1)  # defaults of aten.conv2d's arguments from the bias on
TRANSPOSED_BEHIND = (None, [1, 1], [0, 0], [0, 0], 1, [1, 1])  # of aten.conv_transpose2d's
KERNEL_AXES = 5  # sample, output, input, height, width


@dataclass
class Factors:
    """A kernel (samples, outputs, inputs, height, width) as a product: `weight` (1, outputs, inputs, height, width),
    nodes (samples, 1, inputs, 1, 1) that scale the inputs, nodes (samples, outputs, 1, 1, 1) that scale the outputs.
    """

    weight: Tensor
    inputs: list[fx.Node] = field(default_factory=list)
    outputs: list[fx.Node] = field(default_factory=list)


def rewrite(module: fx.GraphModule) -> None:
    """Replace, in place, every such convolution (plain or transposed, 2D), and the sums of squares of its kernels."""
    for node in calls(module, ATEN.sum.dim_IntList):
        _sum_of_squares(module, node)
    for node in calls(module, ATEN.conv2d.default, ATEN.conv_transpose2d.input):
        _convolution(module, node)
    finish(module)


def _sum_of_squares(module: fx.GraphModule, node: fx.Node) -> None:
    """sum(kernel^2) over the inputs and places -> a product of s^2 (samples, inputs) with a constant matrix."""
    squares, axes, keep, *_ = (*node.args, False)
    kernel = _squared(squares)
    sizes = shape(kernel)
    if (
        kernel is None
        or sizes is None
        or len(sizes) != KERNEL_AXES
        or {axis % KERNEL_AXES for axis in axes} != {2, 3, 4}
    ):
        return
    factors = _factors(module, kernel, sizes)
    if factors is None or not factors.inputs:
        return
    _, made, given, *_ = sizes
    matrix = factors.weight.double().square().sum((0, 3, 4)).T.to(factors.weight.dtype)
    call = partial(_call, module)
    matrix_node = store(module, f"{node.name}_matrix", matrix, before=node)
    with in_place_of(module, node):
        style = call(ATEN.square.default, _product(call, factors.inputs, [-1, given]))
        total = call(ATEN.matmul.default, style, matrix_node)
        if factors.outputs:
            total = call(ATEN.mul.Tensor, total, call(ATEN.square.default, _product(call, factors.outputs, [-1, made])))
        if keep:
            total = call(ATEN.reshape.default, total, [-1, made, 1, 1, 1])
    total.meta.update(node.meta)
    node.replace_all_uses_with(total)
    module.graph.erase_node(node)


def _convolution(module: fx.GraphModule, node: fx.Node) -> None:
    transposed = node.target is ATEN.conv_transpose2d.input
    defaults = TRANSPOSED_BEHIND if transposed else BIAS_AND_BEHIND
    flat, flat_kernel, bias, *behind = (*node.args, *defaults[len(node.args) - 2 :])
    kernel = _stacked(flat_kernel, transposed=transposed)
    sizes, result = shape(kernel), shape(node)
    if sizes is None or result is None or bias is not None or node.kwargs:
        return
    samples, made, given, *_ = sizes
    x = flat.args[0] if is_call(flat, *VIEWS) else flat
    pictures = shape(x)
    fits = pictures is not None and len(pictures) == 4 and _same(pictures[:2], (samples, given))
    if not fits or not _same(result[:2], (1, samples * made)):
        return
    factors = _factors(module, kernel, sizes)
    if factors is None or not (factors.inputs or factors.outputs):
        return
    weight = factors.weight[0].transpose(0, 1) if transposed else factors.weight[0]
    behind[3 if transposed else -1] = 1  # the groups
    call = partial(_call, module)
    weight_node = store(module, f"{node.name}_weight", weight, before=node)
    with in_place_of(module, node):
        if factors.inputs:
            x = call(ATEN.mul.Tensor, x, _product(call, factors.inputs, [-1, given, 1, 1]))
        y = call(node.target, x, weight_node, None, *behind)
        if factors.outputs:
            y = call(ATEN.mul.Tensor, y, _product(call, factors.outputs, [-1, made, 1, 1]))
        flattened = call(ATEN.reshape.default, y, [1, -1, *result[2:]])
    y.meta["val"] = node.meta["val"].new_empty(samples, made, *result[2:])
    flattened.meta.update(node.meta)
    node.replace_all_uses_with(flattened)
    for user in list(flattened.users):
        if is_call(user, *VIEWS) and _same(shape(user) or (), (samples, made, *result[2:])):
            user.replace_all_uses_with(y)
    module.graph.erase_node(node)


def _stacked(kernel: Any, *, transposed: bool) -> Any:
    """The (samples, outputs, inputs, height, width) that a kernel of a grouped convolution is a view of, else None."""
    if not is_call(kernel, *VIEWS):
        return None
    kernel = _through_copies(kernel.args[0])
    if transposed:
        swaps = is_call(kernel, ATEN.transpose.int) and {axis % KERNEL_AXES for axis in kernel.args[1:]} == {1, 2}
        swaps = swaps or (is_call(kernel, ATEN.permute.default) and list(kernel.args[1]) == [0, 2, 1, 3, 4])
        kernel = _through_copies(kernel.args[0]) if swaps else None
    sizes = shape(kernel)
    return kernel if sizes is not None and len(sizes) == KERNEL_AXES else None


def _factors(module: fx.GraphModule, node: Any, sizes: tuple[Any, ...]) -> Factors | None:
    """`node` of these sizes as a product with exactly one weight, None where it is something else."""
    leaves = _leaves(module, node, sizes)
    if leaves is None:
        return None
    weights = [part for part in leaves if isinstance(part, Tensor)]
    weight = torch.ones((), dtype=torch.float64)
    for part in weights:
        weight = weight * part.detach().double()
    if tuple(weight.shape) != (1, *sizes[1:]):
        return None
    factors = Factors(weight.to(torch.float32 if not weights else weights[0].dtype))
    for part in leaves:
        if isinstance(part, fx.Node):
            (factors.inputs if (shape(part) or ())[1] == 1 else factors.outputs).append(part)
    return factors


def _leaves(module: fx.GraphModule, node: Any, sizes: tuple[Any, ...]) -> list[Any] | None:
    """The factors of a product: constants as tensors, scalings as nodes; None for anything else."""
    if isinstance(node, int | float):
        return [torch.tensor(float(node), dtype=torch.float64)]
    value = constant(module, node)
    if value is not None:
        return [value]
    samples, made, given, *_ = sizes
    for expected in ((samples, 1, given, 1, 1), (samples, made, 1, 1, 1)):
        if _same(shape(node) or (), expected):
            return [node]
    if not is_call(node, ATEN.mul.Tensor) or node.kwargs:
        return None
    parts = [_leaves(module, part, sizes) for part in node.args]
    return None if None in parts else [leaf for part in parts for leaf in part or ()]


def _squared(node: Any) -> Any:
    if is_call(node, ATEN.square.default) or (is_call(node, ATEN.pow.Tensor_Scalar) and node.args[1] == 2):
        return node.args[0]
    return node.args[0] if is_call(node, ATEN.mul.Tensor) and node.args[0] is node.args[1] else None


def _product(call: Callable[..., fx.Node], nodes: list[fx.Node], size: list[int]) -> fx.Node:
    """The product of scalings of one shape, as `size`."""
    product = nodes[0]
    for other in nodes[1:]:
        product = call(ATEN.mul.Tensor, product, other)
    return call(ATEN.reshape.default, product, size)


def _call(module: fx.GraphModule, target: Callable[..., Any], *arguments: Any) -> fx.Node:
    return module.graph.call_function(target, arguments)


def _through_copies(node: Any) -> Any:
    while is_call(node, *COPIES):
        node = node.args[0]
    return node


def _same(actual: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Whether two shapes are equal; a symbolic size equals only itself, and adds no guard."""
    return len(actual) == len(expected) and all(str(a) == str(b) for a, b in zip(actual, expected, strict=True))
