"""GroupNorm -> means over the image, then over the channels of a group: XNNPACK has these, not GroupNorm.

    d = x - A mean_hw(x),   y = d * (weight / sqrt(A mean_hw(d^2) + eps)) + bias

A (channels, channels / groups, 1, 1) is the kernel of a grouped 1x1 convolution, all groups / channels: it takes the
mean over each group and gives it to every channel of the group. All groups are equally large, so that this is the mean
over the group's numbers. The variance is taken of d, and not as mean(x^2) - mean(x)^2, which loses every digit where
the mean is large beside the deviation. On XNNPACK the network stays in one piece and in the convolutions' channels-last
layout; mean(d * d) is one fused reduction there.
With as many groups as channels, as in an instance norm, the means over the image are all.
First, the normalisation of flattened images, as in attention, is turned into one of images:
group_norm(view(x, [n, c, h w])) = view(group_norm(x), [n, c, h w]).
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, constant, finish, in_place_of, is_call, replace, shape, store

VIEWS = (ATEN.view.default, ATEN.reshape.default, ATEN._unsafe_view.default)
AXES = (2, 3)  # height and width; the only axes over which XNNPACK takes a mean


def rewrite(module: fx.GraphModule) -> None:
    """Replace, in place, every norm of (batch, channels, height, width) and (batch, channels, length)."""
    _norms_before_views(module)
    shared: dict[Any, fx.Node] = {}
    for node in calls(module, ATEN.group_norm.default, ATEN.instance_norm.default):
        sizes = shape(node.args[0])
        norm = _norm(node, sizes)
        if norm is None:
            continue
        x, groups, weight, bias, eps = norm
        channels = sizes[1]

        def stored_once(name: str, value: Tensor, key: Any, first: fx.Node = node) -> fx.Node:
            if key not in shared:
                shared[key] = store(module, name, value, before=first)
            return shared[key]

        size = channels // groups
        average, small = None, stored_once("norm_eps", torch.full((1, 1, 1, 1), eps), (1, "eps", eps))
        if size > 1:
            average = stored_once("group_mean", torch.full((channels, size, 1, 1), 1 / size), (channels, groups))
            small = stored_once("group_norm_eps", torch.full((channels,), eps), (channels, "eps", eps))
        scale, shift = (_for_pictures(module, value, channels, before=node) for value in (weight, bias))
        replace(module, node, group_norm, x, groups, average, small, scale, shift)
    finish(module)


def group_norm(
    x: Tensor, groups: int, average: Tensor | None, eps: Tensor, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    """The equation of this module: x (batch, channels, height, width) or (batch, channels, length), eps (channels),
    scale and shift (1, channels, 1, 1); `average` None where each channel is a group, eps then (1, 1, 1, 1)."""
    if x.ndim == 3:
        # Not squeezed: XNNPACK reshapes, but leaves a squeeze to the portable kernels, one piece for each norm.
        return group_norm(x.unsqueeze(-1), groups, average, eps, scale, shift).reshape(x.shape)
    mean = x.mean(AXES, keepdim=True)
    if average is not None:
        mean = ATEN.conv2d.default(mean, average, None, [1, 1], [0, 0], [1, 1], groups)
    d = x - mean
    variance = (d * d).mean(AXES, keepdim=True)
    if average is None:
        factor = (variance + eps).rsqrt()
    else:
        factor = ATEN.conv2d.default(variance, average, eps, [1, 1], [0, 0], [1, 1], groups).rsqrt()
    y = d * (factor if scale is None else factor * scale)
    return y if shift is None else y + shift


def _norm(node: fx.Node, sizes: tuple[Any, ...] | None) -> tuple[Any, int, Any, Any, float] | None:
    """x, groups, weight, bias and eps of a norm by the image's own statistics; None for another."""
    if sizes is None or len(sizes) not in (3, 4):
        return None
    if is_call(node, ATEN.group_norm.default):
        return _arguments(*node.args, **node.kwargs)
    arguments: Any = node.args
    x, weight, bias, _, _, by_its_own, _, eps, *_ = arguments
    return (x, sizes[1], weight, bias, eps) if by_its_own and not node.kwargs else None


def _arguments(
    x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> tuple[Any, int, Any, Any, float]:
    """The arguments of torch's operator, by its own defaults."""
    return x, groups, weight, bias, eps


def _for_pictures(module: fx.GraphModule, node: Any, channels: int, *, before: fx.Node) -> Any:
    """One number a channel as (1, channels, 1, 1)."""
    if node is None:
        return None
    value = constant(module, node)
    if value is not None:
        return store(module, f"{node.target}_for_pictures".replace(".", "_"), value.reshape(1, -1, 1, 1), before=before)
    with module.graph.inserting_before(before):
        return module.graph.call_function(ATEN.reshape.default, (node, [1, channels, 1, 1]))


def _norms_before_views(module: fx.GraphModule) -> None:
    """Normalise images before they are flattened, in place, where nothing but the flattening is in between."""
    for node in calls(module, ATEN.group_norm.default):
        view = _before_transpositions(node.args[0])
        if not is_call(view, *VIEWS):
            continue
        x, before, after = view.args[0], shape(view.args[0]), shape(view)
        if before is None or after is None or len(before) != 4 or len(after) != 3 or after[:2] != before[:2]:
            continue
        with in_place_of(module, node):
            normal = module.graph.call_function(ATEN.group_norm.default, (x, *node.args[1:]), dict(node.kwargs))
        normal.meta["val"] = x.meta["val"]
        replace(module, node, ATEN.reshape.default, normal, list(after))


def _before_transpositions(node: Any) -> Any:
    """The node before pairs of transpositions of the axes 1 and 2, which diffusers' attention makes."""
    while is_call(node, ATEN.transpose.int) and is_call(node.args[0], ATEN.transpose.int):
        inner = node.args[0]
        if {a % 3 for a in node.args[1:3]} != {1, 2} or {a % 3 for a in inner.args[1:3]} != {1, 2}:
            break
        node = inner.args[0]
    return node
