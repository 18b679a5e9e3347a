"""A transposed convolution with stride s -> a convolution to s^2 times the channels, its pixels put in their places.

Along one axis, with T = ceil(k / s) taps a phase r and kernel K filled up with zeros to T s:

    y_full[q s + r] = sum_t x[q - t] K[t s + r]            y = y_full without the first p and the last numbers

which is a convolution of x with T numbers of K for each phase, and pixel_shuffle(s) of the phases. The products are as
many but for the zeros. onnxruntime has no transposed convolution in 8 bits, and neither PT2E nor XNNPACK one in groups
with a scale for each output channel; all have this one. It comes before a quantization of the program.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, constant, finish, in_place_of, shape, store

OPERATORS = {ATEN.conv_transpose1d.default: 1, ATEN.conv_transpose2d.input: 2}  # by number of axes
DEFAULTS = (None, 1, 0, 0, 1, 1)  # bias, stride, padding, output padding, groups, dilation
END = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Axis:
    """Of one axis: the taps of a phase; zeros in front of x and behind (negative: cut off); what is cut off y_full."""

    taps: int
    before: int
    behind: int
    first: int
    last: int

    @staticmethod
    def of(kernel: int, stride: int, padding: int, output_padding: int) -> "Axis":
        taps = -(-kernel // stride)
        skipped, first = divmod(padding, stride)  # whole pixels of x that give nothing but what is cut off
        before = taps - 1 - skipped
        # y has (n - 1) stride + end - first numbers from `first` on, and the convolution n - 1 + blocks pixels.
        end = first - 2 * padding + kernel + output_padding
        blocks = -(-end // stride)
        return Axis(taps, before, blocks + taps - 2 - before, first, blocks * stride - end)


def rewrite(module: fx.GraphModule) -> None:
    """Replace every such convolution of `module`, in place: constant weights, no dilation, one stride for all axes."""
    for node in calls(module, *OPERATORS):
        count = OPERATORS[node.target]
        x, kernel, bias, *numbers = (*node.args, *DEFAULTS[len(node.args) - 2 :])
        stride, padding, output_padding = (_each(value, count) for value in numbers[:3])
        groups, dilation = numbers[3], _each(numbers[4], count)
        weight, shift = constant(module, kernel), constant(module, bias)
        sizes = shape(x)
        if weight is None or (bias is not None and shift is None) or len(sizes or ()) != count + 2 or node.kwargs:
            continue
        if len(set(stride)) > 1 or set(dilation) != {1}:
            continue
        axes = [Axis.of(*values) for values in zip(weight.shape[2:], stride, padding, output_padding, strict=True)]
        name = str(kernel.target).replace(".", "_")
        new_weight = store(module, f"{name}_phases", phase_kernels(weight, stride[0], groups), before=node)
        new_bias = None
        if shift is not None:
            repeated = shift.detach().repeat_interleave(stride[0] ** count)
            new_bias = store(module, f"{name}_phases_bias", repeated, before=node)
        with in_place_of(module, node):
            tracer = fx.proxy.GraphAppendingTracer(module.graph)
            proxies = [None if part is None else fx.Proxy(part, tracer) for part in (x, new_weight, new_bias)]
            y: Any = convolve(*proxies, axes=axes, stride=stride[0], groups=groups)
        y.node.meta.update(node.meta)
        node.replace_all_uses_with(y.node)
        module.graph.erase_node(node)
    finish(module)


def phase_kernels(weight: Tensor, stride: int, groups: int) -> Tensor:
    """The kernels (outputs stride^axes, inputs / groups, taps...) of a weight (inputs, outputs / groups, k...)."""
    axes = weight.ndim - 2
    weight = weight.detach()
    filled = [amount for size in reversed(weight.shape[2:]) for amount in (0, -size % stride)]
    kernels = torch.nn.functional.pad(weight, filled)
    taps = [size // stride for size in kernels.shape[2:]]
    split = [part for count in taps for part in (count, stride)]
    kernels = kernels.reshape(groups, -1, weight.shape[1], *split)  # group, input, output, (tap, phase) of each axis
    tap_axes, phase_axes = [3 + 2 * axis for axis in range(axes)], [4 + 2 * axis for axis in range(axes)]
    kernels = kernels.flip(tap_axes).permute(0, 2, *phase_axes, 1, *tap_axes)
    return kernels.reshape(-1, weight.shape[0] // groups, *taps).contiguous()


def convolve(x: Any, kernels: Any, bias: Any, *, axes: list[Axis], stride: int, groups: int) -> Any:
    """x (batch, inputs, n...) -> (batch, outputs, the sizes of the transposed convolution)."""
    padding = [axis.before for axis in axes]
    if any(axis.before != axis.behind or axis.before < 0 for axis in axes):
        amounts = [amount for axis in reversed(axes) for amount in (axis.before, axis.behind)]
        x, padding = ATEN.pad.default(x, amounts), [0] * len(axes)
    ones = [1] * len(axes)
    operator = (ATEN.conv1d if len(axes) == 1 else ATEN.conv2d).default
    y = operator(x, kernels, bias, ones, padding, ones, groups)
    if stride > 1 and len(axes) == 2:
        y = ATEN.pixel_shuffle.default(y, stride)
    elif stride > 1:
        # (batch, outputs stride, n) as an image of one column: a pixel shuffle of lines.
        y = ATEN.unflatten.int(y, 1, [-1, stride])
        y = ATEN.flatten.using_ints(ATEN.permute.default(y, [0, 1, 3, 2]), 2, 3)
    for position, axis in enumerate(axes):
        if axis.first or axis.last:
            y = ATEN.slice.Tensor(y, 2 + position, axis.first, -axis.last if axis.last else END)
    return y


def _each(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values
