"""upsample_conv: equal to upsampling and convolving in float64, borders included; others left alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import captured, largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites.upsample_conv import rewrite


class Grown(nn.Module):
    def __init__(self, scale: Any, *, mode: str = "nearest", also: bool = False, **options: Any) -> None:
        super().__init__()
        self.scale, self.mode, self.also = scale, mode, also
        self.conv = nn.Conv2d(6, 4, **options)

    def forward(self, x: Tensor) -> Tensor:
        large = nn.functional.interpolate(x, scale_factor=self.scale, mode=self.mode)
        out: Tensor = self.conv(large)
        return out + large.mean() if self.also else out


def net_and_input(scale: Any = 2.0, **options: Any) -> tuple[Grown, Tensor]:
    torch.manual_seed(0)
    return Grown(scale, **({"kernel_size": 3, "padding": 1} | options)), torch.randn(2, 6, 5, 4)


@pytest.mark.parametrize("options", [{}, {"bias": False}])
@pytest.mark.parametrize("also", [False, True])
def test_equals_upsampling_and_convolving(options: dict[str, Any], also: bool) -> None:
    net, x = net_and_input(also=also, **options)
    program = rewritten(net, x, rewrite=rewrite)
    names = operators_of(program)
    assert names.count("aten.conv2d.default") == 9
    assert ("aten.upsample_nearest2d.vec" in names) is also
    assert largest_error(program, net, x) < 1e-6
    read = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.users]
    before, after = sum(weight.numel() for weight in net.parameters()), sum(value.numel() for value in read) - x.numel()
    assert after == before


@pytest.mark.parametrize("scale", [2.0, 3.0, (2.0, 1.0)])
def test_a_1x1_convolution_goes_first(scale: Any) -> None:
    net, x = net_and_input(scale, kernel_size=1, padding=0)
    program = rewritten(net, x, rewrite=rewrite)
    assert operators_of(program) == ["aten.conv2d.default", "aten.upsample_nearest2d.vec"]
    assert largest_error(program, net, x) < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"kernel_size": 2},
        {"kernel_size": 5, "padding": 2},
        {"scale": 1.5},
        {"scale": 3.0},
        {"scale": (2.0, 1.0)},
        {"mode": "bilinear"},
    ],
)
def test_others_are_left_alone(options: dict[str, Any]) -> None:
    net, x = net_and_input(**options)
    program = rewritten(net, x, rewrite=rewrite)
    assert operators_of(program) == operators_of(captured(net, x))
    assert largest_error(program, net, x) < 1e-6


def test_the_net_stays_in_one_piece() -> None:
    net, x = net_and_input()
    assert outside(captured(net, x[:1])) == (1, ["aten.upsample_nearest2d.vec"])
    assert outside(rewritten(net, x[:1], rewrite=rewrite)) == (1, [])


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_a_border_of_its_own_pixels_is_kept(mode: str) -> None:
    class Bordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            large = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            out: Tensor = self.conv(nn.functional.pad(large, (1, 1, 1, 1), mode=mode))
            return out

    torch.manual_seed(0)
    net, x = Bordered(), torch.randn(2, 6, 5, 4)
    program = rewritten(net, x, rewrite=rewrite)
    assert operators_of(program).count("aten.conv2d.default") == 9
    assert largest_error(program, net, x) < 1e-6
