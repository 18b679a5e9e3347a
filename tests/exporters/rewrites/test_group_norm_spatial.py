"""group_norm_spatial: equal to PyTorch's group norm in float64, also far from zero; one piece for XNNPACK."""

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import captured, largest_error, operators_of, outside, rewritten

from edgegen.exporters.rewrites.group_norm_spatial import rewrite


class Norm(nn.Module):
    def __init__(self, groups: int, channels: int, *, affine: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=eps, affine=affine)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


@pytest.mark.parametrize(("groups", "channels"), [(1, 8), (4, 8), (8, 8), (2, 6)])
@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (9,)])
@pytest.mark.parametrize("affine", [True, False])
def test_equals_group_norm(groups: int, channels: int, shape: tuple[int, ...], affine: bool) -> None:
    torch.manual_seed(0)
    net, x = Norm(groups, channels, affine=affine), torch.randn(2, channels, *shape)
    program = rewritten(net, x, rewrite=rewrite)
    assert "aten.group_norm.default" not in operators_of(program)
    assert largest_error(program, net, x) < 1e-6


def test_a_mean_a_thousand_times_the_deviation_costs_no_more_than_the_inputs_own_rounding() -> None:
    torch.manual_seed(0)
    net, x = Norm(2, 8), torch.randn(1, 8, 6, 6) + 1000.0
    error = largest_error(rewritten(net, x, rewrite=rewrite), net, x)
    assert error < 2 * max(largest_error(captured(net, x), net, x), 1e-6)  # mean(x^2) - mean(x)^2 would give 0.1


def test_a_norm_of_vectors_is_left_alone() -> None:
    net, x = Norm(2, 8), torch.randn(3, 8)
    program = rewritten(net, x, rewrite=rewrite)
    assert operators_of(program) == ["aten.group_norm.default"]


class Flattened(nn.Module):
    """diffusers' attention: the picture is flattened and turned twice before it is normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 1), Norm(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        tokens = x.view(x.shape[0], x.shape[1], -1).transpose(1, 2)
        normal: Tensor = self.norm(tokens.transpose(1, 2))
        return normal.transpose(1, 2)


def test_a_flattened_picture_is_normalised_as_a_picture() -> None:
    torch.manual_seed(0)
    net, x = Flattened(), torch.randn(2, 3, 4, 6)
    program = rewritten(net, x, rewrite=rewrite)
    names = operators_of(program)
    assert names.index("aten.mean.dim") == names.index("aten.conv2d.default") + 1
    assert max(i for i, name in enumerate(names) if name == "aten.mul.Tensor") < names.index("aten.reshape.default")
    assert largest_error(program, net, x) < 1e-6


class ConvNormConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), Norm(4, 8), nn.Conv2d(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.nn.functional.silu(self.norm(self.first(x))))
        return out


def test_the_net_stays_in_one_piece() -> None:
    net, x = ConvNormConv(), torch.randn(1, 3, 8, 8)
    pieces, left = outside(captured(net, x))
    assert pieces == 2
    assert left == ["aten.native_group_norm.default"]
    assert outside(rewritten(net, x, rewrite=rewrite)) == (1, [])


def test_a_net_of_sounds_stays_in_one_piece_too() -> None:
    norms = [nn.Conv1d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv1d(8, 8, 3, padding=1)]
    net = nn.Sequential(*norms, nn.GroupNorm(1, 8), nn.Conv1d(8, 4, 1)).eval()
    assert outside(rewritten(net, torch.randn(1, 4, 16), rewrite=rewrite)) == (1, [])


@pytest.mark.parametrize("affine", [True, False])
def test_an_instance_norm_needs_no_means_over_groups(affine: bool) -> None:
    torch.manual_seed(0)
    norm, x = nn.InstanceNorm2d(6, affine=affine), torch.randn(2, 6, 5, 7)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    program = rewritten(norm, x, rewrite=rewrite)
    assert not {"aten.instance_norm.default", "aten.conv2d.default"} & set(operators_of(program))
    assert largest_error(program, norm, x) < 1e-6
    net = nn.Sequential(nn.Conv2d(6, 6, 1), norm, nn.Conv2d(6, 6, 1))
    assert outside(rewritten(net, x[:1], rewrite=rewrite)) == (1, [])


def test_a_norm_by_stored_statistics_is_left_alone() -> None:
    norm, x = nn.InstanceNorm2d(6, track_running_stats=True), torch.randn(2, 6, 5, 7)
    assert operators_of(rewritten(norm, x, rewrite=rewrite)) == operators_of(captured(norm, x))
