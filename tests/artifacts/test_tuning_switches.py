"""Which changes `edgegen tune` tries: those of this network's program, of float files and of rounded ones."""

import pytest
import torch
from torch import nn

from edgegen.artifacts.maker import Maker
from edgegen.artifacts.target import Target
from edgegen.artifacts.tuning_switches import Switches, rewrites_of
from edgegen.errors import ExportError
from edgegen.program.generator import Generator
from edgegen.recipe import Export, Quantize
from edgegen.support.children import Children
from edgegen.support.progress import Silent
from edgegen.types import Signature


class Growing(nn.Module):
    """A nearest upsampling before a convolution, and a GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(4, 32)
        self.wide, self.mix, self.head = nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        small = nn.functional.avg_pool2d(self.wide(nn.functional.pad(self.norm(self.stem(sample)), (1, 1, 1, 1))), 2)
        out: torch.Tensor = self.head(nn.functional.interpolate(self.mix(small), scale_factor=2.0, mode="nearest"))
        return out


@pytest.fixture(scope="module")
def maker() -> Maker:
    torch.manual_seed(0)
    generator = Generator(Growing().eval(), Signature.of(channels=3, size=16, num_classes=0))
    options, quantization = Export(), Quantize(samples=2, float_layers=("*mix",))
    return Maker(
        generator,
        name="net",
        metadata={},
        options=options,
        quantization=quantization,
        refined=lambda scheme: None,
        children=Children(),
        seed=0,
        progress=Silent(),
    )


def test_of_a_float_file_what_changes_its_program(maker: Maker) -> None:
    switches = dict(Switches(maker).of(Target("executorch", "fp32")))
    assert {"group_norm_spatial", "upsample_conv"} <= switches.keys()
    assert not {"modulated_conv", "attention_bmm", "reflection_pad"} & switches.keys()
    assert not any(name.startswith("float ") for name in switches)


@pytest.mark.long
def test_of_a_rounded_file_what_changes_it_after_it_was_rounded(maker: Maker) -> None:
    """A convolution in 8 bits is no longer joined to the upsampling before it, which is a concatenation then."""
    all_switches = Switches(maker)
    target = Target("executorch", "w8a8")
    switches = dict(all_switches.of(target))
    assert {"group_norm_spatial", "upsample_cat"} <= switches.keys()
    assert not {"upsample_conv", "modulated_conv", "pointwise", "winograd_rows"} & switches.keys()
    groups = [name for name in switches if name.startswith("float ")]
    assert groups == ["float narrow convolutions"], "mix is float by the recipe; stem and head are both"
    changes = (("float narrow convolutions", True), ("upsample_cat", False))
    assert all_switches.float_layers(target, changes) == ("head", "stem")
    assert rewrites_of(changes) == {"upsample_cat": False}


@pytest.mark.long
def test_a_file_of_8_bits_without_any_is_not_made(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups may be all layers together, and one may be what the recipe left."""
    all_switches, target = Switches(maker), Target("executorch", "w8a8")
    all_switches.of(target)
    all_switches.groups["w8a8"]["dense layers"] = ("wide",)
    narrow, dense = ("float narrow convolutions", True), ("float dense layers", True)
    assert all_switches.checked_float_layers(target, (narrow,)) == ("head", "stem")
    with pytest.raises(ExportError, match="no layer would be left in w8a8"):
        all_switches.checked_float_layers(target, (narrow, dense))
    monkeypatch.setattr(maker, "quantization", Quantize(samples=2, float_layers=("*mix", "*wide")))
    assert not any(name.startswith("float ") for name, _ in Switches(maker).of(target))
