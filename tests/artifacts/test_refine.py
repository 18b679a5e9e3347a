"""Refinement: recovery and learned rounding bring the rounded images nearer; mixed files keep their budget."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgegen.artifacts.build import build
from edgegen.artifacts.refine import refine
from edgegen.artifacts.relative_latency import MixedLatency
from edgegen.artifacts.sensitivity import sensitivity_of
from edgegen.artifacts.target import Target
from edgegen.errors import BudgetError, UsageError
from edgegen.program.capture import capture, reference
from edgegen.program.generator import Generator
from edgegen.program.inputs import InputSource, example_inputs
from edgegen.program.one_step import OneStep
from edgegen.quantize.adaround import learn_rounding
from edgegen.quantize.bias_correction import correct_biases
from edgegen.quantize.calibration import calibration_batches
from edgegen.quantize.fake_quant import floating, simulate
from edgegen.recipe import Quantize, Recover
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db, psnr_range

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)
FEW = Quantize(samples=64)


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1), nn.SiLU()]
    return OneStep(nn.Sequential(*layers, nn.Conv2d(32, 1, 3, padding=1))).eval()


def refined(module: nn.Module, scheme: str, folder: Path, **settings: Any) -> Any:
    options = FEW.model_copy(update={"budget": settings.pop("budget", None)})
    generator = Generator(module, SIGNATURE)
    return refine(generator, scheme, options=options, seed=3, folder=folder, progress=Silent(), **settings)


def test_recovery_brings_the_images_nearer_and_leaves_the_student_alone(module: nn.Module, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    settings = Recover(steps=80, batch=16, learning_rate=1e-3, warmup=5)
    first = refined(module, "w4-block", tmp_path, recover=settings)
    assert first.psnr_after_db >= first.psnr_before_db + 1.0
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    # A killed run continues from the checkpoint; a finished one has nothing to train.
    again = refined(module, "w4-block", tmp_path, recover=settings)
    assert again.psnr_after_db == first.psnr_after_db


def test_learned_rounding_beats_rounding_to_nearest_and_lies_on_the_grid(module: nn.Module) -> None:
    batches = calibration_batches(InputSource(SIGNATURE, 3), samples=128, batch=128)
    inputs = tuple(torch.from_numpy(values) for values in batches[0].values())
    simulated = simulate(capture(module, SIGNATURE, batch=None), "w4-block", batches, FEW)

    exact = copy.deepcopy(floating(simulated))
    shown = example_inputs(SIGNATURE, 16, 9)
    expected = reference(module, shown)
    nearest = psnr_db(expected, reference(simulated.module, shown))
    untouched = copy.deepcopy(simulated.module.state_dict())
    learned = learn_rounding(exact, simulated, inputs, iterations=150, seed=0)
    assert learned.layers == 1, "only the inner convolution is large enough"
    assert learned.error_after < learned.error_before
    assert psnr_db(expected, reference(simulated.module, shown)) > nearest
    # On the grid: to round is to change nothing; and no weight is further than one step from where it was.
    (layer,) = (layer for layer in simulated.layers if layer.name == "net.2")
    weights = simulated.module.get_parameter(layer.target).detach()
    (rounding,) = (rounding for rounding in simulated.roundings["net.2"] if hasattr(rounding, "grid"))
    assert torch.equal(rounding(weights), weights)
    assert ((weights - untouched[layer.target]).abs() <= rounding.scale(weights) * 1.001).all()


def test_bias_correction_removes_the_mean_error(module: nn.Module) -> None:
    """Of the last layer the mean of each channel is the image's: afterwards it is the float network's."""
    batches = calibration_batches(InputSource(SIGNATURE, 3), samples=128, batch=128)
    inputs = tuple(torch.from_numpy(values) for values in batches[0].values())
    biased = OneStep(nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1)))

    simulated = simulate(capture(biased.eval(), SIGNATURE, batch=None), "w8a8", batches, FEW)
    simulated.set_active(False)
    for name, roundings in simulated.roundings.items():
        roundings[0].active = roundings[1].active = name.endswith("0")  # the first layer's weights and input
    exact = copy.deepcopy(floating(simulated))
    expected, before = reference(exact, batches[0]).mean(), reference(simulated.module, batches[0]).mean()
    assert correct_biases(exact, simulated, inputs) == 2
    after = reference(simulated.module, batches[0]).mean()
    assert abs(after - expected) <= max(1e-6, 0.05 * abs(before - expected))


@pytest.mark.long
def test_a_mixed_file_keeps_its_budget(module: nn.Module, tmp_path: Path, in_process: None) -> None:
    inputs = example_inputs(SIGNATURE, 64, 11)
    expected = reference(module, inputs)
    plain = refined(module, "w8a8", tmp_path)
    limit_db = plain.psnr_before_db + 4.0
    mixed = refined(module, "mixed", tmp_path, budget=f"psnr>={limit_db}")
    assert 0 < len(mixed.options.float_layers) < 3
    target = Target("onnx", "mixed")
    source = mixed.program.module(check_guards=False)
    fixed: dict[str, Any] = {"name": "t", "folder": tmp_path, "seed": 3, "metadata": {}}
    artifact = build(source, SIGNATURE, target=target, quantization=mixed.options, **fixed).artifact
    images = load("backend", "onnx").open(tmp_path / artifact.file)(inputs)["out_sample"]
    assert psnr_db(expected, images, data_range=psnr_range(SIGNATURE, expected)) >= limit_db - 0.5
    rows = mixed.to_dict()
    assert [row["name"] for row in rows["layers"]] == ["net.0", "net.2", "net.4"]
    assert rows["pareto"][0]["float_layers"] == []


class Timer:
    """In place of `RelativeLatency`: each layer left float takes 0.2 of the float time more than all rounded, 0.3."""

    def of_mixed(self, backend: str) -> MixedLatency:
        slower = {"onnx": 0.0, "executorch": 0.1}[backend]
        return lambda module, numbers: 0.3 + slower + 0.2 * len(numbers.float_layers)


@pytest.mark.slow
def test_a_mixed_file_is_as_fast_as_asked_in_every_runtime(module: nn.Module, tmp_path: Path) -> None:
    budget = "latency<=0.65"
    timer: Any = Timer()
    alone = refined(module, "mixed", tmp_path, budget=budget, relative_latency=timer, backends=("executorch",))
    both = refined(module, "mixed", tmp_path, budget=budget, relative_latency=timer, backends=("onnx", "executorch"))
    assert len(alone.options.float_layers) == len(both.options.float_layers) == 1
    # Of the two small layers either may stay float, that with the larger error; the large one may not.
    costs = {cost.name: cost for cost in both.costs}
    assert costs["net.2"].macs == 32 * 32 * 9 * 64
    assert costs["net.0"].macs == costs["net.4"].macs == 32 * 9 * 64
    assert both.options.float_layers == (max("net.0", "net.4", key=lambda name: costs[name].mse),)
    with pytest.raises(BudgetError, match=r"all rounded .* and 0\.40 of the float file's time"):
        refined(module, "mixed", tmp_path, budget="latency<=0.39", relative_latency=timer, backends=("executorch",))


def test_a_budget_that_no_mixed_file_keeps_is_an_error(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="no choice of layers keeps the budget"):
        refined(module, "mixed", tmp_path, budget="size<=0.1")
    with pytest.raises(UsageError, match="a mixed file needs a budget"):
        refined(module, "mixed", tmp_path)


def test_the_most_sensitive_layer_is_the_one_that_was_made_so(module: nn.Module) -> None:
    """A weight a hundred times the others leaves them a handful of steps."""

    spoiled = copy.deepcopy(module)
    with torch.no_grad():
        spoiled.get_parameter("net.2.weight")[:, 0, 0, 0] = 2.0
    rows = sensitivity_of(Generator(spoiled, SIGNATURE), "w8", options=FEW, seed=3, progress=Silent())["layers"]
    assert min(rows, key=lambda row: row["psnr_db"])["name"] == "net.2"
    assert all(np.isfinite(row["psnr_db"]) for row in rows)


def test_the_change_of_the_distribution_is_a_figure_of_its_own(module: nn.Module) -> None:
    """Any figure of the images will do: here their variance; w4-block rounds the inner layer alone."""
    shapes: list[tuple[int, ...]] = []

    def spread(images: Any) -> float:
        shapes.append(images.shape)
        return float(np.var(images))

    generator = Generator(module, SIGNATURE)
    figures = sensitivity_of(generator, "w4-block", options=FEW, seed=3, fd_local=spread, images=24, progress=Silent())
    expected = reference(module, example_inputs(SIGNATURE, 24, 3))
    assert figures["fd_local"] == pytest.approx(float(np.var(expected)))
    changes = {row["name"]: row["fd_change"] for row in figures["layers"]}
    assert changes["net.2"] != 0.0, "large enough for blocks"
    assert changes["net.0"] == changes["net.4"] == pytest.approx(0.0, abs=1e-5)
    assert set(shapes) == {(24, 1, 8, 8)}
