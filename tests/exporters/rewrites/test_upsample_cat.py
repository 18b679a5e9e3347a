"""upsample_cat: bit for bit nearest upsampling by whole factors; others left alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import captured, operators_of, outside, rewritten

from edgegen.exporters.rewrites.upsample_cat import rewrite

NEAREST = "aten.upsample_nearest2d.vec"


class Upsample(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, mode="nearest", **self.options)


@pytest.mark.parametrize(
    "options", [{"scale_factor": 2.0}, {"scale_factor": (1.0, 3.0)}, {"size": (10, 4)}, {"scale_factor": (2.0, 1.0)}]
)
def test_equals_upsampling(options: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 5, 4)
    program = rewritten(Upsample(**options), x, rewrite=rewrite)
    assert NEAREST not in operators_of(program)
    assert torch.equal(program.module()(x), Upsample(**options)(x))


@pytest.mark.parametrize("options", [{"scale_factor": 1.5}, {"size": (12, 8)}, {"size": (5, 24)}, {"size": (3, 4)}])
def test_others_are_left_alone(options: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 5, 4)
    program = rewritten(Upsample(**options), x, rewrite=rewrite)
    assert operators_of(program) == [NEAREST]
    assert torch.equal(program.module()(x), Upsample(**options)(x))


def test_the_net_stays_in_one_piece() -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 4, 1), Upsample(scale_factor=2.0)), torch.randn(1, 3, 4, 4)
    assert NEAREST in outside(captured(net, x))[1]
    assert outside(rewritten(net, x, rewrite=rewrite)) == (1, [])
