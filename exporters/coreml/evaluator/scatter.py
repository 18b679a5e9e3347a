"""The Core ML (MIL) ops that write into a tensor, in torch: scatters and the update of a slice.

The same conventions as in ops.py. Of two updates of one place, "update" keeps one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from edgegen.exporters.coreml.evaluator.indexing import slice_places
from edgegen.exporters.coreml.evaluator.ops import Op

MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
    "mul": torch.mul,
    "sub": torch.sub,
    "update": lambda old, new: new,
}


def _write(data: Tensor, places: tuple[Tensor, ...], updates: Tensor, mode: str) -> Tensor:
    """data[places] = mode(data[places], updates), one after the other so that updates of one place add up."""
    out = data.clone()
    flat = [place.flatten() for place in places]
    rows = updates.reshape(len(flat[0]), *data.shape[len(flat) :])
    for i in range(len(flat[0])):
        at = tuple(place[i] for place in flat)
        out[at] = MODES[mode](out[at], rows[i])
    return out


def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Tensor,
    mode: str = "add",
    validate_indices: Tensor | None = None,
) -> Tensor:
    """Whole slices along `axis`: updates are (*data.shape[:axis], *indices.shape, *data.shape[axis + 1:])."""
    dim = int(axis) % data.ndim
    slices = updates.flatten(dim, dim + indices.ndim - 1) if indices.ndim else updates.unsqueeze(dim)
    return _write(data.movedim(dim, 0), (indices.long(),), slices.movedim(dim, 0), mode).movedim(0, dim)


def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Tensor,
    mode: str = "add",
    validate_indices: Tensor | None = None,
) -> Tensor:
    """Single numbers: the place of updates[i, j, ...] has indices[i, j, ...] for its coordinate along `axis`."""
    dim = int(axis) % data.ndim
    grid = torch.meshgrid(*(torch.arange(size) for size in indices.shape), indexing="ij")
    return _write(data, tuple(indices.long() if d == dim else at for d, at in enumerate(grid)), updates, mode)


def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add", validate_indices: Tensor | None = None
) -> Tensor:
    """The last dimension of `indices` holds the first coordinates of what is written."""
    return _write(data, indices.long().unbind(-1), updates, mode)


def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """numpy's x[begin:end:stride] = update; the masks as in slice_by_index."""
    out = x.clone()
    out[tuple(slice_places(x, begin, end, stride, begin_mask, end_mask, squeeze_mask))] = update
    return out


OPS: dict[str, Op] = {
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
    "slice_update": slice_update,
}
