"""split_slices: torch's parts, whatever the sizes; a net that splits stays in one piece for XNNPACK."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import captured, largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites.split_slices import OPS


class Parts(nn.Module):
    """Every part is scaled by another number, so that a mistaken part shows."""

    def __init__(self, parts: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part * (1.0 + i) for i, part in enumerate(self.parts(x))], dim=-1)


@pytest.mark.parametrize(
    "parts",
    [
        lambda x: torch.split(x, 4, dim=-1),  # 4, 4, 4
        lambda x: torch.split(x, 5, dim=-1),  # 5, 5, 2
        lambda x: torch.split(x, 40, dim=2),  # one part
        lambda x: torch.split(x, [1, 4, 7], dim=2),
        lambda x: torch.chunk(x, 3, dim=-1),
        lambda x: torch.chunk(x, 5, dim=-1),  # 3, 3, 3, 3: four parts
    ],
)
def test_equals_torch(parts: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    torch.manual_seed(0)
    net, x = Parts(parts), torch.randn(2, 3, 12)
    program = rewritten(net, x, operators=OPS)
    assert not {"aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default"} & set(operators_of(program))
    assert largest_error(program, net, x) < 1e-7


def test_parts_along_the_first_axis() -> None:
    net, x = Parts(lambda x: torch.split(x, 2, dim=0)), torch.randn(4, 3)
    assert largest_error(rewritten(net, x, operators=OPS), net, x) < 1e-7


def test_the_net_stays_in_one_piece() -> None:
    net, x = Parts(lambda x: torch.chunk(x, 3, dim=1)), torch.randn(1, 6, 4)
    assert outside(captured(net, x)) != (1, [])
    assert outside(rewritten(net, x, operators=OPS)) == (1, [])
