"""Every cell of the matrix is built, opened and compared: a new scheme or backend is covered by its line there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import signature_of
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.quantize.support_matrix import cell, matrix
from edgegen.recipe import Export, Quantize
from edgegen.registry import load
from edgegen.verification.parity import check

# Wide enough that the weights dominate the file, few blocks so that lowering takes seconds.
CONFIG = EdgeUNetConfig(sample_size=8, in_channels=3, channels=(64,), blocks=1, attention=(0,), num_classes=4)
OVERHEAD = 150_000  # bytes of program text and headers, whatever the weights
BYTES = {"fp32": 4, "fp16": 2, "w8": 1, "w8a8": 1, "mixed": 1, "w6": 0.75, "w4": 0.5, "w4-block": 0.5}
METHODS = {
    "onnx": "onnxruntime 1.",
    "executorch": "executorch 1.5.1 XNNPACK CPU",
    "coreml": "edgegen MIL evaluator (",
}


@pytest.mark.long
@pytest.mark.parametrize(("scheme", "backend"), sorted(matrix()))
def test_a_cell_gives_a_file_that_is_small_and_true(
    scheme: str,
    backend: str,
    tmp_path: Path,
    in_process: None,
    traces: Callable[[bytes], list[str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    net = EdgeUNet(CONFIG)
    randomize_zero_layers(net, 3)
    signature = signature_of(CONFIG)
    module = fold(OneStep(net, time=1.0), signature).module
    artifact = build(
        module,
        signature,
        name="net",
        target=Target(backend, scheme),
        folder=tmp_path,
        quantization=Quantize(samples=64),
        seed=0,
        metadata={},
        options=Export(coreml_target="iOS18"),
    ).artifact
    path = tmp_path / artifact.file
    weights = BYTES[scheme] * sum(parameter.numel() for parameter in module.parameters())
    assert weights < artifact.nbytes < weights + OVERHEAD
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    assert [traces(file.read_bytes()) for file in files] == [[]] * len(files)
    inputs = example_inputs(signature, 8, seed=9)
    session = load("backend", backend).open(path)
    parity = check(session, inputs, reference(module, inputs), floor_db=cell(scheme, backend).floor_db)
    assert parity.status == "ok", parity
    assert parity.method.startswith(METHODS[backend])
    assert capfd.readouterr() == ("", ""), "a vendor's chatter came through"
