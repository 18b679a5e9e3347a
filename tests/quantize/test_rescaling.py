"""Equalization and smoothing change the weights and not the function, and undo an imbalance that was planted."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgegen.artifacts.refine import refine
from edgegen.program.capture import capture, reference
from edgegen.program.generator import Generator
from edgegen.program.inputs import InputSource, example_inputs
from edgegen.program.one_step import OneStep
from edgegen.quantize.calibration import calibration_batches
from edgegen.quantize.cross_layer_equalization import equalize
from edgegen.quantize.smoothquant import smooth
from edgegen.recipe import Quantize
from edgegen.support.progress import Silent
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)
LOUD = 64.0  # times larger than the other channels


def net(between: nn.Module) -> nn.Module:
    """Two convolutions, of which the inner channel 3 is loud and read quietly."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), between, nn.Conv2d(16, 1, 3, padding=1))
    with torch.no_grad():
        layers[0].weight[3] *= LOUD
        layers[0].bias[3] *= LOUD
        layers[2].weight[:, 3] /= LOUD
    return OneStep(layers).eval()


def captured(module: nn.Module) -> Any:
    return capture(copy.deepcopy(module), SIGNATURE, batch=None).module(check_guards=False)


def assert_same_function(module: nn.Module, changed: fx.GraphModule) -> None:
    shown = example_inputs(SIGNATURE, 8, 5)
    expected = reference(module, shown)
    np.testing.assert_allclose(reference(changed, shown), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("between", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Identity(), nn.Upsample(scale_factor=1)])
def test_equalized_channels_are_as_large_before_as_behind(between: nn.Module) -> None:
    module = net(between)
    changed = captured(module)
    assert equalize(changed) == 1
    assert_same_function(module, changed)
    first, second = changed.get_parameter("net.0.weight"), changed.get_parameter("net.2.weight")
    before, behind = first.abs().amax((1, 2, 3)), second.abs().amax((0, 2, 3))
    torch.testing.assert_close(before, behind, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("between", [nn.SiLU(), nn.GroupNorm(4, 16), nn.ELU()])
def test_what_is_not_homogeneous_joins_no_pair(between: nn.Module) -> None:
    changed = captured(net(between))
    assert equalize(changed) == 0


def test_a_layer_that_others_read_too_is_no_pair() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.first(x)
            return made + self.second(made)

    assert equalize(captured(OneStep(Residual()).eval())) == 0


def test_a_channel_that_is_never_used_stays_finite() -> None:
    module = net(nn.ReLU())
    with torch.no_grad():
        module.get_parameter("net.0.weight")[5] = 0.0
        module.get_parameter("net.2.weight")[:, 6] = 0.0
    changed = captured(module)
    equalize(changed)
    smooth(changed, noise())
    assert_same_function(module, changed)


def noise() -> Any:
    return calibration_batches(InputSource(SIGNATURE, 3), samples=64, batch=32)


def test_smoothing_behind_an_activation_takes_a_multiplication() -> None:
    module = net(nn.SiLU())
    changed = captured(module)
    assert smooth(changed, noise()) == 1
    assert_same_function(module, changed)
    ratio = module.get_parameter("net.2.weight") / changed.get_parameter("net.2.weight")
    # The formula, from the definition: activations by hand over the same noise.
    with torch.no_grad():
        given = torch.cat([torch.from_numpy(batch["sample"]) for batch in noise()])
        largest = module.net[:2](given).abs().amax((0, 2, 3))  # type: ignore[index, operator]
    weights = module.get_parameter("net.2.weight").abs().amax((0, 2, 3))
    torch.testing.assert_close(ratio.mean((0, 2, 3)), (weights / largest).sqrt(), rtol=1e-3, atol=0.0)


def test_smoothing_behind_a_norm_costs_nothing() -> None:
    module = net(nn.GroupNorm(4, 16))
    with torch.no_grad():
        module.get_parameter("net.1.weight")[3] = LOUD
    changed = captured(module)
    operations = [node.target for node in changed.graph.nodes if node.op == "call_function"]
    assert smooth(changed, noise()) == 0
    assert_same_function(module, changed)
    assert operations == [node.target for node in changed.graph.nodes if node.op == "call_function"]
    assert changed.get_parameter("net.1.weight")[3] < LOUD / 2


def test_a_norm_that_others_read_too_keeps_its_size() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16)
            self.second, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            normed = self.norm(self.first(x))
            out: torch.Tensor = self.last(normed + self.second(normed))
            return out

    module = OneStep(Skip()).eval()
    changed = captured(module)
    assert smooth(changed, noise()) == 2, "before the second and before the last layer"
    assert_same_function(module, changed)


GAINS = [(nn.ReLU(), "equalization", 10.0), (nn.SiLU(), "smoothing", 2.0)]


@pytest.mark.parametrize(("between", "method", "gain_db"), GAINS)
def test_the_loud_channel_no_longer_costs_the_others(
    between: nn.Module, method: str, gain_db: float, tmp_path: Path
) -> None:
    refined = refine(
        Generator(net(between), SIGNATURE),
        "w8a8",
        options=Quantize(samples=64, methods=(method,)),
        seed=3,
        folder=tmp_path,
        progress=Silent(),
    )
    assert refined.psnr_after_db >= refined.psnr_before_db + gain_db
