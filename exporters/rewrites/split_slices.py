"""split, split_with_sizes and chunk -> one slice for each part: XNNPACK has slices, not a split.

The parts are the same numbers; each slice copies its own, as the split does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ATEN = torch.ops.aten


def split_with_sizes(x: Tensor, split_sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    """Parts of `split_sizes` along `dim`, from the first element on."""
    parts, start = [], 0
    for size in split_sizes:
        parts.append(ATEN.slice.Tensor(x, dim, start, start + size))
        start += size
    return parts


def split(x: Tensor, split_size: int, dim: int = 0) -> list[Tensor]:
    """Parts of `split_size` along `dim`; the last one has what is left."""
    length = x.shape[dim]
    return split_with_sizes(x, [min(split_size, length - start) for start in range(0, length, split_size)], dim)


def chunk(x: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    """At most `chunks` parts of one size, as torch counts them."""
    return split(x, -(-x.shape[dim] // chunks), dim)


OPS = {ATEN.split.Tensor: split, ATEN.split_with_sizes.default: split_with_sizes, ATEN.chunk.default: chunk}
