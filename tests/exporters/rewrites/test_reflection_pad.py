"""reflection_pad: the same numbers as PyTorch's; other paddings are left alone; one piece for XNNPACK."""

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import captured, largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites.reflection_pad import rewrite


class Padded(nn.Module):
    def __init__(self, padding: tuple[int, ...], mode: str) -> None:
        super().__init__()
        self.padding, self.mode = padding, mode

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, self.padding, mode=self.mode)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (4, 4, 4, 4), (0, 2, 3, 0), (1, 0, 0, 0)])
def test_equals_the_padding(padding: tuple[int, ...], mode: str) -> None:
    net, x = Padded(padding, mode), torch.randn(2, 3, 6, 7)
    program = rewritten(net, x, rewrite=rewrite)
    assert "aten.pad.default" not in operators_of(program)
    assert largest_error(program, net, x) < 1e-7


@pytest.mark.parametrize(("padding", "mode"), [((1, 1), "reflect"), ((1, 1, 1, 1), "constant"), ((1, 1), "circular")])
def test_others_are_left_alone(padding: tuple[int, ...], mode: str) -> None:
    net, x = Padded(padding, mode), torch.randn(3, 6, 7)
    assert operators_of(rewritten(net, x, rewrite=rewrite)) == operators_of(captured(net, x))


def test_the_net_stays_in_one_piece() -> None:
    net = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(3, 8, 9), nn.ReplicationPad2d(1), nn.Conv2d(8, 8, 3))
    x = torch.randn(1, 3, 12, 12)
    assert outside(captured(net, x))[1] != []
    assert outside(rewritten(net, x, rewrite=rewrite)) == (1, [])
