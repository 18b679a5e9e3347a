"""Resampling by reshape -> the runtime's own operator: repeat to nearest upsampling, mean to average pooling.

    view(repeat(view(x, [n, c, h, 1, w, 1]), [1, 1, 1, r, 1, s]), [n, c, rh, sw])  =  upsample_nearest(x, (r, s))
    mean(view(x, [n, c, h / r, r, w / s, s]), axes 3 and 5)                        =  avg_pool(x, (r, s))
    upfirdn(x, kernel, up, down, padding)  =  a convolution of each channel alone, with stride `down`, or a transposed
                                              one with stride `up` and the kernel turned round

A repeat over six axes copies number by number, a mean over two split axes is transposed first; the operators are one
pass, and run in the layout of the convolutions beside them. upfirdn (arXiv:1912.04958, section 2; the skip blocks of
diffusers' UNet2DModel) puts zeros between the pixels over six axes, which Core ML has not.
"""

from typing import Any

from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import ATEN, calls, constant, finish, is_call, replace, shape, store

VIEWS = (ATEN.view.default, ATEN.reshape.default, ATEN._unsafe_view.default)
COPIES = (ATEN.clone.default, ATEN.contiguous.default)
REPEATS = (ATEN.repeat.default, ATEN.expand.default)
PADS = (ATEN.pad.default, ATEN.constant_pad_nd.default)


def rewrite(module: fx.GraphModule) -> None:
    """Replace every such chain of `module`, in place."""
    for node in calls(module, *VIEWS):
        _upsampling(module, node)
    for node in calls(module, ATEN.mean.dim):
        _pooling(module, node)
    for node in calls(module, ATEN.conv2d.default):
        _fir(module, node)
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


def _fir(module: fx.GraphModule, conv: Any) -> None:
    """upfirdn around the convolution of all channels, one by one as samples, with one kernel."""
    kernel = constant(module, conv.args[1])
    if kernel is None or tuple(kernel.shape[:2]) != (1, 1) or any(conv.args[2:]) or conv.kwargs:
        return
    padded = _before(conv.args[0])
    zeros_between = _before(padded.args[0]) if is_call(padded, *PADS) else None
    x = _before(zeros_between.args[0]) if is_call(zeros_between, *PADS) else None
    sizes = shape(x)
    if sizes is None or len(sizes) != 4 or not isinstance(sizes[1], int):
        return
    if not (_with_zeros(padded) and _with_zeros(zeros_between)):
        return
    left, right, top, bottom = _amounts(padded, [2, 3, 4, 5])
    across, up = (amount + 1 for amount in _amounts(zeros_between, [3, 7]))
    channels, height, width = sizes[1:]
    samples = sizes[0] * channels
    chain = [
        (zeros_between.args[0], (samples, height, 1, width, 1, 1)),
        (padded.args[0], (samples, height * up, width * across, 1)),
        (conv.args[0], (samples, 1, height * up + top + bottom, width * across + left + right)),
    ]
    last, down = _behind(conv, (*sizes[:2],))
    if last is None or not all(_same(shape(node) or (), expected) for node, expected in chain):
        return
    if (up, across) == (1, 1):
        _filter(module, conv, last, x, kernel, channels, down, [left, right, top, bottom])
    elif down == [1, 1]:
        _spread(module, conv, last, x, kernel, channels, [up, across], [(top, bottom), (left, right)])


def _filter(
    module: fx.GraphModule,
    conv: fx.Node,
    last: fx.Node,
    x: Any,
    kernel: Tensor,
    channels: int,
    down: list[int],
    amounts: list[int],
) -> None:
    weight = store(module, f"{conv.name}_fir", kernel.expand(channels, -1, -1, -1), before=last)
    left, right, top, bottom = amounts
    padding = [top, left]
    if (top, left) != (bottom, right):
        with module.graph.inserting_before(last):
            x, padding = module.graph.call_function(ATEN.pad.default, (x, amounts)), [0, 0]
    replace(module, last, ATEN.conv2d.default, x, weight, None, down, padding, [1, 1], channels)


def _spread(
    module: fx.GraphModule,
    conv: fx.Node,
    last: fx.Node,
    x: Any,
    kernel: Tensor,
    channels: int,
    up: list[int],
    amounts: list[tuple[int, int]],
) -> None:
    """Zeros between the pixels and a convolution: out[i] = y[i + k - 1 - before] of the transposed convolution y."""
    padding = [size - 1 - before for size, (before, _) in zip(kernel.shape[2:], amounts, strict=True)]
    more = [step + behind - before - 1 for step, (before, behind) in zip(up, amounts, strict=True)]
    if min(padding) < 0 or not all(0 <= extra < step for extra, step in zip(more, up, strict=True)):
        return
    turned = kernel.flip((2, 3)).expand(channels, -1, -1, -1)
    weight = store(module, f"{conv.name}_fir", turned, before=last)
    replace(module, last, ATEN.conv_transpose2d.input, x, weight, None, up, padding, more, channels)


def _before(node: Any) -> Any:
    """What `node` is a view of, in the same order: also a permutation around an axis of one number."""
    while _is_view(node):
        node = node.args[0]
    return node


def _behind(conv: fx.Node, batch: tuple[Any, ...]) -> tuple[fx.Node | None, list[int]]:
    """The view (samples, channels, ...) of a convolution's output, of every so many rows and columns: the steps."""
    node, steps = conv, [1, 1]
    while len(node.users) == 1:
        (user,) = node.users
        before, after = shape(node), shape(user)
        if before is None or after is None:
            break
        if is_call(user, *VIEWS) and before[-1] == 1 and _same(after, (*batch, *before[1:3])):
            return user, steps
        if _is_view(user):
            node = user
            continue
        data, axis, start, _, step = (*user.args, *(None, None, 0, None, 1)[len(user.args) :])
        if (
            not is_call(user, ATEN.slice.Tensor)
            or axis not in (1, 2)
            or start != 0
            or before[-1] != 1
            or data is not node
        ):
            break
        steps[axis - 1] *= step
        node = user
    return None, steps


def _is_view(node: Any) -> bool:
    if is_call(node, *VIEWS, *COPIES):
        return True
    before, after = shape(node.args[0]) if isinstance(node, fx.Node) and node.args else None, shape(node)
    if is_call(node, ATEN.slice.Tensor):
        return before is not None and after is not None and _same(before, after)
    if not is_call(node, ATEN.permute.default) or before is None or after is None:
        return False
    order = [axis for axis in node.args[1] if before[axis] != 1]
    return order == sorted(order)


def _with_zeros(node: Any) -> bool:
    return all(value in ("constant", 0, None) for value in node.args[2:]) and not node.kwargs


def _amounts(pad: Any, places: list[int]) -> list[Any]:
    """Those of a padding at some places, where the others are zero; else numbers that fit no chain."""
    amounts = list(pad.args[1])
    amounts += [0] * (8 - len(amounts))
    others = [amount for place, amount in enumerate(amounts) if place not in places]
    return [amounts[place] for place in places] if not any(others) else [-1] * len(places)


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
