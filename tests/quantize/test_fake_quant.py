"""The rounded network in float: against what PT2E converts, what coremltools writes, and the float network."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from edgegen.errors import UsageError
from edgegen.exporters.coreml.backend import BACKEND
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import InputSource
from edgegen.program.one_step import OneStep
from edgegen.quantize.calibration import calibration_batches
from edgegen.quantize.coreml import quantize_w4_block
from edgegen.quantize.fake_quant import FakeQuantizedNetwork, floating, simulate
from edgegen.quantize.pt2e import quantize
from edgegen.quantize.schemes import matching
from edgegen.recipe import Export, Quantize
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from tests.quantize.conftest import Tiny

DEFAULT_OPTIONS = Quantize()


def batches(tiny: "Tiny") -> Any:
    return calibration_batches(InputSource(tiny.signature, 3), samples=64, batch=32)


@pytest.fixture(scope="module")
def program(tiny: "Tiny") -> "ExportedProgram":
    return capture(tiny.module, tiny.signature, batch=None)


@pytest.fixture
def simulated(tiny: "Tiny", program: "ExportedProgram") -> FakeQuantizedNetwork:
    return simulate(program, "w8a8", batches(tiny), DEFAULT_OPTIONS)


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("w8a8", DEFAULT_OPTIONS),
        ("w8a8", Quantize(ranges="percentile")),
        ("w8a8", Quantize(float_layers=("net.stem", "net.down.*"))),
        ("w8", DEFAULT_OPTIONS),
    ],
)
def test_it_computes_what_pt2e_converts(
    tiny: "Tiny", program: "ExportedProgram", scheme: str, options: Quantize
) -> None:
    converted = reference(quantize(program, scheme, batches(tiny), options), tiny.inputs)
    got = reference(simulate(program, scheme, batches(tiny), options).module, tiny.inputs)
    assert np.abs(got - converted).max() <= 1e-5
    assert np.abs(got - tiny.expected).max() > 1e-3, "something was rounded"


def test_blocks_are_what_coremltools_writes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = OneStep(
        nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 1, 1))
    )
    signature = Signature.of(channels=1, size=8, num_classes=0)
    captured = capture(module.eval(), signature, batch=None)
    got = simulate(
        captured, "w4-block", calibration_batches(InputSource(signature, 0), samples=1, batch=1), DEFAULT_OPTIONS
    ).module
    inputs = calibration_batches(InputSource(signature, 5), samples=2, batch=2)[0]
    plain, made = tmp_path / "a.mlpackage", tmp_path / "b.mlpackage"
    options: Any = {"options": Export(coreml_target="iOS18"), "variant": "", "metadata": {}}
    one = capture(module, signature, batch=1)
    BACKEND.lower(one, plain, signature=signature, precision="fp32", **options)
    quantize_w4_block(plain, made)
    expected = BACKEND.open(made)(inputs)["out_sample"]
    assert psnr_db(reference(module, inputs), expected) < 45.0, "weights of 4 bits"
    assert psnr_db(expected, reference(got, inputs)) > 90.0


def test_without_its_roundings_it_is_the_float_network(tiny: "Tiny", simulated: FakeQuantizedNetwork) -> None:
    assert np.abs(reference(floating(simulated), tiny.inputs) - tiny.expected).max() <= 1e-6
    simulated.set_active(False)
    assert np.abs(reference(simulated.module, tiny.inputs) - tiny.expected).max() <= 1e-6
    simulated.set_active(True, {"net.head"})
    alone = np.abs(reference(simulated.module, tiny.inputs) - tiny.expected).max()
    simulated.set_active(True)
    assert 0 < alone < np.abs(reference(simulated.module, tiny.inputs) - tiny.expected).max()


def test_gradients_pass_and_the_students_weights_stay(tiny: "Tiny", program: "ExportedProgram") -> None:
    before = copy.deepcopy(tiny.module.state_dict())
    made = simulate(
        capture(copy.deepcopy(tiny.module), tiny.signature, batch=None), "w8a8", batches(tiny), DEFAULT_OPTIONS
    )
    made.module.train().requires_grad_(True)
    inputs = [torch.from_numpy(values) for values in tiny.inputs.values()]
    made.module(*inputs).square().mean().backward()
    gradients = [p.grad for p in made.module.parameters() if p.ndim == 4]
    assert all(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)
    assert all(torch.equal(before[name], value) for name, value in tiny.module.state_dict().items())


def test_a_pattern_without_a_layer_is_an_error(tiny: "Tiny", program: "ExportedProgram") -> None:
    with pytest.raises(UsageError, match=r"no layer that matches 'net.haed'; there are: .*Did you mean 'net.head'"):
        simulate(program, "w8a8", batches(tiny), Quantize(float_layers=("net.haed",)))
    assert matching(("a.*",), ("a.b", "a.c", "b")) == {"a.b", "a.c"}
    assert matching((), ("a",)) == set()
