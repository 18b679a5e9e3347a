"""few_outputs: equal to the convolution in float64; where no product is saved, others are left alone."""

from typing import Any

import pytest
import torch
from torch import nn
from xnnpack_support import largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites.few_outputs import rewrite


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"padding": 0}, {"kernel_size": 3, "padding": 1}])
@pytest.mark.parametrize("outputs", [1, 3])
def test_equals_the_convolution(outputs: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(8, outputs, **({"kernel_size": 9, "padding": 4} | options))
    x = torch.randn(2, 8, 12, 16)
    program = rewritten(net, x, rewrite=rewrite)
    assert operators_of(program)[-1] == "aten.pixel_shuffle.default"
    assert largest_error(program, net, x) < 1e-6


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (12, {"out_channels": 16}),
        (13, {}),
        (12, {"stride": 2}),
        (12, {"dilation": 2}),
        (12, {"kernel_size": 1, "padding": 0, "out_channels": 16}),
    ],
)
def test_others_are_left_alone(size: int, options: dict[str, Any]) -> None:
    net = nn.Conv2d(8, **({"out_channels": 3, "kernel_size": 3, "padding": 1} | options))
    assert operators_of(rewritten(net, torch.randn(1, 8, size, size), rewrite=rewrite)) == ["aten.conv2d.default"]


def test_the_net_stays_in_one_piece() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 9, padding=4))
    assert outside(rewritten(net, torch.randn(1, 3, 16, 16), rewrite=rewrite)) == (1, [])
