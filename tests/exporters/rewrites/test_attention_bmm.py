"""attention_bmm: equal to PyTorch's attention and matmul in float64; others left alone; one piece for XNNPACK."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import captured, largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites.attention_bmm import OPS

SDPA = "aten.scaled_dot_product_attention.default"


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.options)


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape) for shape in shapes]


@pytest.mark.parametrize("lead", [(2,), (2, 3), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_attention(lead: tuple[int, ...], options: dict[str, Any], masked: bool) -> None:
    inputs = tensors((*lead, 5, 8), (*lead, 7, 8), (*lead, 7, 6), *([(*lead, 5, 7)] if masked else []))
    net = Attention(**options)
    program = rewritten(net, *inputs, operators=OPS)
    assert SDPA not in operators_of(program)
    assert "aten.bmm.default" in operators_of(program)
    assert largest_error(program, net, *inputs) < 1e-6


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"is_causal": True}, [(1, 2, 5, 8)] * 3),
        ({"enable_gqa": True}, [(1, 4, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)]),
        ({}, [(2, 5, 8), (1, 5, 8), (1, 5, 8)]),  # leading axes that are broadcast
        ({}, [(5, 8)] * 3),
    ],
)
def test_other_attention_is_left_alone(options: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    inputs, net = tensors(*shapes), Attention(**options)
    program = rewritten(net, *inputs, operators=OPS)
    assert operators_of(program) == [SDPA]
    assert largest_error(program, net, *inputs) < 1e-6


def test_a_boolean_mask_is_left_alone() -> None:
    q, k, v = tensors(*[(1, 1, 4, 8)] * 3)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    assert SDPA in operators_of(rewritten(Attention(), q, k, v, mask, operators=OPS))


class Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


@pytest.mark.parametrize(
    ("a", "b", "operator"),
    [
        ((2, 3, 4), (2, 4, 5), "aten.bmm.default"),
        ((2, 3, 4, 5), (2, 3, 5, 6), "aten.bmm.default"),
        ((2, 3, 4), (4, 5), "aten.matmul.default"),
        ((2, 3, 4), (1, 4, 5), "aten.matmul.default"),
    ],
)
def test_equals_matmul(a: tuple[int, ...], b: tuple[int, ...], operator: str) -> None:
    inputs = tensors(a, b)
    program = rewritten(Product(), *inputs, operators=OPS)
    assert operator in operators_of(program)
    assert largest_error(program, Product(), *inputs) < 1e-6


def test_attention_stays_in_one_piece() -> None:
    inputs = tensors(*[(1, 2, 4, 8)] * 3)
    pieces, left = outside(captured(Attention(), *inputs))
    assert pieces > 1
    assert "aten.logical_not.default" in left
    assert outside(rewritten(Attention(), *inputs, operators=OPS)) == (1, [])
