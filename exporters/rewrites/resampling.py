"""Resampling by reshape -> the runtime's own operator: repeat to nearest upsampling, mean to average pooling.

    view(repeat(view(x, [n, c, h, 1, w, 1]), [1, 1, 1, r, 1, s]), [n, c, rh, sw])  =  upsample_nearest(x, (r, s))
    mean(view(x, [n, c, h / r, r, w / s, s]), axes 3 and 5)                        =  avg_pool(x, (r, s))

A repeat over six axes copies number by number, a mean over two split axes is transposed first; both operators are
one pass, and run in the layout of the convolutions beside them.
"""

from typing import Any

from torch import fx

from edgegen.exporters.rewrites._graph import ATEN, calls, finish, is_call, replace, shape

VIEWS = (ATEN.view.default, ATEN.reshape.default, ATEN._unsafe_view.default)
COPIES = (ATEN.clone.default, ATEN.contiguous.default)
REPEATS = (ATEN.repeat.default, ATEN.expand.default)


def rewrite(module: fx.GraphModule) -> None:
    """Replace every such chain of `module`, in place."""
    for node in calls(module, *VIEWS):
        _upsampling(module, node)
    for node in calls(module, ATEN.mean.dim):
        _pooling(module, node)
    finish(module)


def _upsampling(module: fx.GraphModule, last: Any) -> None:
    repeat = _through_copies(last.args[0])
    if not is_call(repeat, *REPEATS) or not is_call(repeat.args[0], *VIEWS):
        return
    x = repeat.args[0].args[0]
    before, split, repeated, after = (shape(node) for node in (x, repeat.args[0], repeat, last))
    if before is None or split is None or repeated is None or after is None or len(before) != 4 or len(repeated) != 6:
        return
    batch, channels, rows, columns = before
    up, across = repeated[3], repeated[5]
    chain = [
        (split, (batch, channels, rows, 1, columns, 1)),
        (repeated, (batch, channels, rows, up, columns, across)),
        (after, (batch, channels, rows * up, columns * across)),
    ]
    if all(_same(actual, expected) for actual, expected in chain):
        replace(module, last, ATEN.upsample_nearest2d.vec, x, None, [float(up), float(across)])


def _pooling(module: fx.GraphModule, mean: Any) -> None:
    view, axes = mean.args[0], mean.args[1]
    if not is_call(view, *VIEWS) or len(mean.args) > 2 or mean.kwargs or not isinstance(axes, (list, tuple)):
        return
    x = view.args[0]
    before, split = shape(x), shape(view)
    if before is None or split is None or len(before) != 4 or len(split) != 6 or {a % 6 for a in axes} != {3, 5}:
        return
    batch, channels, rows, columns = before
    down, across = split[3], split[5]
    is_static = all(isinstance(size, int) for size in (rows, columns, down, across))
    if is_static and _same(split, (batch, channels, rows // down, down, columns // across, across)):
        replace(module, mean, ATEN.avg_pool2d.default, x, [down, across], [down, across])


def _through_copies(node: Any) -> Any:
    while is_call(node, *COPIES):
        node = node.args[0]
    return node


def _same(actual: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Whether two shapes are equal; a symbolic size equals only itself, and adds no guard."""
    return len(actual) == len(expected) and all(
        a == b if isinstance(a, int) and isinstance(b, int) else str(a) == str(b)
        for a, b in zip(actual, expected, strict=True)
    )
