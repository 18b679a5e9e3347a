"""scalar_operands: equal in float64, other ranks and tensors left alone, and fewer turns in XNNPACK's layout."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites.scalar_operands import rewrite


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("function", [lambda x: x + 2, lambda x: x - 0.3, lambda x: x * 3.0, lambda x: x / 2**0.5])
def test_equals_the_operation(function: Callable[[Tensor], Tensor]) -> None:
    net, x = Apply(function), torch.randn(2, 3, 4, 5)
    program = rewritten(net, x, rewrite=rewrite)
    assert [tuple(value.shape) for value in program.state_dict.values()] == [(1, 1, 1, 1)]
    assert largest_error(program, net, x) < 1e-6
    assert outside(program) == (1, [])


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x * 2.0, (3, 4, 5)),
        (lambda x: x * x, (1, 3, 4, 5)),
        (lambda x: torch.add(x, 1, alpha=2), (1, 3, 4, 5)),
    ],
)
def test_others_are_left_alone(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    net, x = Apply(function), torch.randn(shape)
    program = rewritten(net, x, rewrite=rewrite)
    assert not program.state_dict
    assert torch.equal(program.module()(x), function(x))


def test_integers_are_left_alone() -> None:
    net, x = Apply(lambda x: x + 1), torch.arange(24).reshape(1, 2, 3, 4)
    assert operators_of(rewritten(net, x, rewrite=rewrite)) == ["aten.add.Tensor"]
    assert not rewritten(net, x, rewrite=rewrite).state_dict
