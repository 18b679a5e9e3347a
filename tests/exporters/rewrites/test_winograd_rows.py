"""winograd_rows: equal to the convolution in float64, borders included; small and odd ones left alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites import winograd_rows
from edgegen.exporters.rewrites.winograd_rows import rewrite


class Conv(nn.Module):
    def __init__(self, inputs: int = 64, outputs: int = 64, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, **({"kernel_size": 3, "padding": 1} | options))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


def net_and_input(height: int = 16, width: int = 16, **options: Any) -> tuple[Conv, Tensor]:
    torch.manual_seed(0)
    net = Conv(**options)
    return net, torch.randn(2, net.conv.in_channels, height, width)


@pytest.mark.parametrize(("height", "width"), [(2, 3), (4, 1), (6, 5), (16, 16)])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"inputs": 5, "outputs": 7}])
def test_equals_the_convolution(
    height: int, width: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd_rows, "LEAST_PIXELS", 1)
    monkeypatch.setattr(winograd_rows, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd_rows, "MOST_GROWTH", 0.34)
    net, x = net_and_input(height, width, **options)
    program = rewritten(net, x, rewrite=rewrite)
    assert operators_of(program).count("aten.conv2d.default") == 4
    assert largest_error(program, net, x) < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"height": 15, "width": 20},
        {"height": 8, "width": 8},
        {"inputs": 32},  # with less than 64 channels it does not pay
        {"outputs": 3},
        {"stride": 2},
        {"padding": 2},
        {"padding": (1, 0)},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"kernel_size": 1, "padding": 0},
    ],
)
def test_others_are_left_alone(options: dict[str, Any]) -> None:
    net, x = net_and_input(**options)
    assert operators_of(rewritten(net, x, rewrite=rewrite)) == ["aten.conv2d.default"]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = Conv(), Conv()

    def forward(self, x: Tensor) -> Tensor:
        large: Tensor = self.large(nn.functional.interpolate(self.small(x), scale_factor=2.0))
        return large


def test_the_largest_pictures_come_first_within_the_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Two(), torch.randn(1, 64, 16, 16)
    monkeypatch.setattr(winograd_rows, "FREE_GROWTH", 0)
    for growth, count in ((0.1, 2), (0.2, 5), (0.34, 8)):
        monkeypatch.setattr(winograd_rows, "MOST_GROWTH", growth)
        program = rewritten(net, x, rewrite=rewrite)
        assert operators_of(program).count("aten.conv2d.default") == count
        assert any(name.startswith("large") and "rows" in name for name in program.state_dict) is (growth > 0.1)
        assert any(name.startswith("small") and "rows" in name for name in program.state_dict) is (growth > 0.2)


def test_the_net_stays_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_rows, "MOST_GROWTH", 0.34)
    net, x = net_and_input()
    assert outside(rewritten(net, x[:1], rewrite=rewrite)) == (1, [])


class Dense(nn.Module):
    """Convolutions one behind the other, and of a growing concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = Conv(), Conv(), Conv(128, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        out: Tensor = self.last(torch.cat([x, y], dim=1)) + self.second(x)[:, :, 1:-1, 1:-1]
        return out


def test_convolutions_in_a_row_and_of_concatenations_share_their_parts() -> None:
    net, x = Dense(), torch.randn(1, 64, 20, 18)
    program = rewritten(net, x, rewrite=rewrite)
    names = operators_of(program)
    assert names.count("aten.conv2d.default") == 16
    assert names.count("aten.pad.default") == 2  # of x, read twice, and of what the second convolution reads
    assert largest_error(program, net, x) < 1e-6
