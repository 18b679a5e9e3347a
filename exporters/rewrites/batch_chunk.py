"""chunk along an axis of open size, such as a batch doubled for guidance -> one slice for each part.

The optimiser of torch.onnx fails at a split of a size that it does not know. Where that is known to be a multiple of
the count, the parts are the same numbers; elsewhere the operator stays.
"""

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

ATEN = torch.ops.aten


def chunk(x: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    """`chunks` parts of one size along `dim`."""
    length = x.shape[dim]
    if isinstance(length, int) or not statically_known_true(length % chunks == 0):
        parts: list[Tensor] = ATEN.chunk.default(x, chunks, dim)
        return parts
    size = length // chunks
    return [ATEN.slice.Tensor(x, dim, index * size, (index + 1) * size) for index in range(chunks)]


OPS = {ATEN.chunk.default: chunk}
