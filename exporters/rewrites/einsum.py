"""einsum of two operands -> one batched matrix product: sum_k a[b, m, k] c[b, k, n] over grouped axes.

onnxruntime and XNNPACK have no einsum of their own: they transpose in memory before and after a product. Where
the axes stand in groups, as in attention over images, reshaping is enough; a transposed operand stays a view that
runtimes fuse with the product.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor


def einsum(equation: str, operands: Sequence[Tensor], *, path: Any = None) -> Tensor:
    """torch.einsum; others than products of two operands (a trace, a lone sum, an ellipsis) are left to torch."""
    axes = _axes(equation, len(operands))
    if axes is None:
        plain: Tensor = torch.ops.aten.einsum.default(equation, list(operands))
        return plain
    (a, b), (left, right, result) = operands, axes
    batch = [letter for letter in result if letter in left and letter in right]
    summed = [letter for letter in left if letter in right and letter not in result]
    rows = [letter for letter in result if letter in left and letter not in right]
    columns = [letter for letter in result if letter in right and letter not in left]
    sizes = {**dict(zip(left, a.shape, strict=True)), **dict(zip(right, b.shape, strict=True))}
    if result == "".join(batch + columns + rows) and rows and columns:
        a, b, left, right, rows, columns = b, a, right, left, columns, rows
    product = torch.matmul(_matrix(a, left, batch, rows, summed), _matrix(b, right, batch, summed, columns))
    order = "".join(batch + rows + columns)
    product = product.reshape([sizes[letter] for letter in order])
    return product if order == result else product.permute([order.index(letter) for letter in result])


OPS = {torch.ops.aten.einsum.default: einsum}


def _axes(equation: str, operands: int) -> tuple[str, str, str] | None:
    """The letters of both operands and of the result, None where this is no product of two operands."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    parts = inputs.split(",")
    if not arrow or len(parts) != 2 or operands != 2 or not (inputs.replace(",", "") + result).isalpha():
        return None
    left, right = parts
    if any(len(set(letters)) != len(letters) for letters in (left, right, result)):
        return None
    shared, summed = set(left) & set(right), (set(left) | set(right)) - set(result)
    return (left, right, result) if summed and summed <= shared else None


def _matrix(value: Tensor, letters: str, batch: list[str], rows: list[str], columns: list[str]) -> Tensor:
    """`value` as (batch..., rows, columns); groups in the other order become a transposed view."""
    transposed = "".join(batch + columns + rows) == letters and "".join(batch + rows + columns) != letters
    first, second = (columns, rows) if transposed else (rows, columns)
    order = [letters.index(letter) for letter in batch + first + second]
    value = value if order == sorted(order) else value.permute(order)
    shape = list(value.shape)
    start, middle = len(batch), len(batch) + len(first)
    value = value.reshape([*shape[:start], prod(shape[start:middle]), prod(shape[middle:])])
    return value.transpose(-1, -2) if transposed else value
