"""The Core ML (MIL) ops that read parts of a tensor, in torch: slices and gathers.

The same conventions as in ops.py.
"""

import torch
from torch import Tensor

from edgegen.exporters.coreml.evaluator.ops import Op, ints


def slice_places(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> list[int | slice]:
    """numpy's index for each dimension of `x`: see slice_by_index."""
    steps = [1] * x.ndim if stride is None else ints(stride)
    masks = [[0] * x.ndim if mask is None else ints(mask) for mask in (begin_mask, end_mask, squeeze_mask)]
    return [
        start if single else slice(None if from_edge else start, None if to_edge else stop, step)
        for start, stop, step, from_edge, to_edge, single in zip(ints(begin), ints(end), steps, *masks, strict=True)
    ]


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """numpy's x[begin:end:stride] per dimension; a mask opens that side, `squeeze_mask` takes begin alone."""
    places = slice_places(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for dim, place in enumerate(places):  # torch's own slices take no negative step
        positions = range(x.shape[dim])[place]
        selected = [positions] if isinstance(positions, int) else list(positions)
        x = x.index_select(dim, torch.tensor(selected, dtype=torch.int64))
    single = [dim for dim, place in enumerate(places) if isinstance(place, int)]
    return x.squeeze(single) if single else x


def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """A size of -1 runs to the end."""
    for dim, (start, length) in enumerate(zip(ints(begin), ints(size), strict=True)):
        x = x.narrow(dim, start, x.shape[dim] - start if length == -1 else length)
    return x


def reverse(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.flip(list(range(x.ndim)) if axes is None else ints(axes))


def gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor,
    batch_dims: Tensor | int = 0,
    validate_indices: Tensor | None = None,
) -> Tensor:
    """From iOS 17 on indices are not negative; one out of range is an error here and undefined on a device."""
    if int(batch_dims):
        rows = zip(x, indices, strict=True)
        return torch.stack([gather(row, at, axis - 1, int(batch_dims) - 1) for row, at in rows])
    dim = int(axis) % x.ndim
    selected = x.index_select(dim, indices.flatten().long())
    return selected.reshape([*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :]])


def gather_along_axis(x: Tensor, indices: Tensor, axis: Tensor, validate_indices: Tensor | None = None) -> Tensor:
    return torch.gather(x, int(axis), indices.long())


def gather_nd(
    x: Tensor, indices: Tensor, batch_dims: Tensor | int = 0, validate_indices: Tensor | None = None
) -> Tensor:
    if int(batch_dims):
        return torch.stack([gather_nd(row, at, int(batch_dims) - 1) for row, at in zip(x, indices, strict=True)])
    return x[indices.long().unbind(-1)]


OPS: dict[str, Op] = {
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "reverse": reverse,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
}
