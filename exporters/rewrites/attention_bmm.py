"""Attention and matmul -> batched matrix products of three axes: softmax(q k^T scale + mask) v, without guards.

PyTorch's own decomposition of scaled_dot_product_attention scales both factors and guards rows that are masked out
entirely (eq, logical_not, any, where), and matmul expands its operands. XNNPACK has none of these and runs bmm and
softmax, so that an attention layer falls into five pieces there; this form is one. Without a mask both are equal.
"""

import math
from typing import Any

import torch
from torch import Tensor

ATEN = torch.ops.aten


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's scaled_dot_product_attention of (batch, heads, length, width); dropout and shared heads stay torch's.

    A boolean mask stays torch's as well: a row that it hides entirely is zero there and not a number here.
    """
    boolean = attn_mask is not None and attn_mask.dtype == torch.bool
    ranks = {query.ndim, key.ndim, value.ndim}
    same = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    if dropout_p or is_causal or enable_gqa or boolean or len(ranks) != 1 or query.ndim < 3 or not same:
        options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
        return ATEN.scaled_dot_product_attention.default(query, key, value, attn_mask, dropout_p, is_causal, **options)
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    # Scaling the queries costs (length, width) multiplications where scaling the scores costs (length, length).
    scores = matmul(query * scale, key.transpose(-1, -2))
    if attn_mask is not None:
        scores = scores + attn_mask
    return matmul(scores.softmax(dim=-1), value)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """torch.matmul; operands with equal leading axes become one bmm, others are left to torch."""
    if a.ndim != b.ndim or a.ndim < 3 or a.shape[:-2] != b.shape[:-2]:
        return ATEN.matmul.default(a, b)
    if a.ndim == 3:
        return torch.bmm(a, b)
    product = torch.bmm(a.flatten(0, -3), b.flatten(0, -3))
    return product.reshape(*a.shape[:-1], b.shape[-1])


OPS = {ATEN.scaled_dot_product_attention.default: attention, ATEN.matmul.default: matmul}
