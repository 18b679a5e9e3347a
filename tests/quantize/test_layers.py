"""Layers by what they have in common."""

import torch
from torch import nn

from edgegen.quantize.layers import layer_groups
from edgegen.quantize.schemes import with_float
from edgegen.recipe import Quantize


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.alone = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.mix, self.dense = nn.Conv2d(32, 32, 1), nn.Linear(32, 32)
        self.head = nn.ConvTranspose2d(32, 32, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mix(self.alone(self.wide(self.stem(x))))
        out: torch.Tensor = self.head(x + self.dense(x.mean((2, 3)))[..., None, None])
        return out


def groups_of(module: nn.Module, *sizes: int) -> dict[str, tuple[str, ...]]:
    return layer_groups(torch.export.export(module.eval(), (torch.zeros(sizes),)).module(check_guards=False))


def test_layers_are_grouped_by_kind_and_width() -> None:
    assert groups_of(Mixed(), 1, 3, 8, 8) == {
        "dense layers": ("dense",),
        "1x1 convolutions": ("mix",),
        "narrow convolutions": ("stem", "alone"),
        "the first and last layer": ("stem", "head"),
    }


def test_a_group_that_is_another_or_all_layers_is_none() -> None:
    assert groups_of(nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)), 1, 3, 8, 8) == {
        "narrow convolutions": ("0",)
    }
    assert groups_of(nn.ReLU(), 1, 3) == {}


def test_more_layers_stay_float() -> None:
    assert with_float(Quantize(float_layers=("a.*",)), ["b"]).float_layers == ("a.*", "b")
