"""GroupNorm -> means over the picture, then over the channels of a group: XNNPACK has the former, not GroupNorm.

    d = x - mean_group(mean_hw(x)),   y = d * (weight / sqrt(mean_group(mean_hw(d^2)) + eps)) + bias

All groups are equally large, so the mean over a group is the mean of its channels' means. The variance is taken of d,
and not as mean(x^2) - mean(x)^2, which loses every digit where the mean is large beside the deviation. On XNNPACK the
net stays in one piece and in the convolutions' channels-last layout; mean(d * d) is one fused reduction there.
Beside it, the normalisation of flattened pictures, as attention does it, is turned into one of pictures:
group_norm(view(x, [n, c, h w])) = view(group_norm(x), [n, c, h w]).
"""

from typing import Any

from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, finish, is_call, replace, shape

VIEWS = (ATEN.view.default, ATEN.reshape.default, ATEN._unsafe_view.default)
AXES = (2, 3)  # height and width; the only axes over which XNNPACK takes a mean


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """torch's group_norm of (batch, channels, height, width) or (batch, channels, length); others are left to torch."""
    if x.ndim not in (3, 4):
        y: Tensor = ATEN.group_norm.default(x, groups, weight, bias, eps, cudnn_enabled)
        return y
    if x.ndim == 3:
        return group_norm(x.unsqueeze(-1), groups, weight, bias, eps).squeeze(-1)
    channels = x.shape[1]
    d = x - _group_mean(x, groups)
    scale = (_group_mean(d * d, groups) + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.reshape(1, channels, 1, 1)
    y = d * scale
    return y if bias is None else y + bias.reshape(1, channels, 1, 1)


OPS = {ATEN.group_norm.default: group_norm}


def rewrite(module: fx.GraphModule) -> None:
    """Normalise pictures before they are flattened, in place, where nothing but the flattening is in between."""
    for node in calls(module, ATEN.group_norm.default):
        view = _through_turns(node.args[0])
        if not is_call(view, *VIEWS):
            continue
        x, before, after = view.args[0], shape(view.args[0]), shape(view)
        if before is None or after is None or len(before) != 4 or len(after) != 3 or after[:2] != before[:2]:
            continue
        with module.graph.inserting_before(node):
            normal = module.graph.call_function(ATEN.group_norm.default, (x, *node.args[1:]), dict(node.kwargs))
        normal.meta["val"] = x.meta["val"]
        replace(module, node, ATEN.reshape.default, normal, list(after))
    finish(module)


def _group_mean(x: Tensor, groups: int) -> Tensor:
    """The mean over the picture and each group of channels, (batch, channels, 1, 1): a channel has its group's."""
    batch, channels = x.shape[0], x.shape[1]
    means = x.mean(AXES, keepdim=True).reshape(batch, groups, channels // groups, 1)
    # XNNPACK broadcasts in arithmetic only, and has no operator that makes zeros.
    each = means.mean(AXES, keepdim=True) + (means - means)
    return each.reshape(batch, channels, 1, 1)


def _through_turns(node: Any) -> Any:
    """What stands before pairs of transpositions of the axes 1 and 2, which diffusers' attention makes."""
    while is_call(node, ATEN.transpose.int) and is_call(node.args[0], ATEN.transpose.int):
        inner = node.args[0]
        if {a % 3 for a in node.args[1:3]} != {1, 2} or {a % 3 for a in inner.args[1:3]} != {1, 2}:
            break
        node = inner.args[0]
    return node
