"""Files with an input without axes (a scalar): inspected, measured, and sampled from; against NumPy."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from measured import needs_compiler
from onnx import TensorProto, helper
from torch import Tensor, nn

from edgegen.artifacts.sessions import open_artifact
from edgegen.exporters.executorch.backend import BACKEND as EXECUTORCH
from edgegen.formats.manifest import write_manifest
from edgegen.inspection.record import inspect
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.files.subject import read_subject
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.program.inputs import example_inputs
from edgegen.recipe import Export
from edgegen.support.progress import Silent
from edgegen.support.storage import nbytes_of, sha256_of
from edgegen.types import Artifact, Parity, Signature, TensorSpec

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)
SHAPES = {"sample": ["n", 3, 4, 4], "strength": [], "flag": []}
TYPES = {"sample": TensorProto.FLOAT, "strength": TensorProto.FLOAT, "flag": TensorProto.BOOL}


def onnx_file(path: Path, *names: str) -> Path:
    """strength x sample, negative where there is no flag; the inputs in this order."""
    nodes = [helper.make_node("Mul", ["sample", "strength"], ["scaled"])]
    if "flag" in names:
        nodes.append(helper.make_node("Neg", ["scaled"], ["negative"]))
        nodes.append(helper.make_node("Where", ["flag", "scaled", "negative"], ["picture"]))
    else:
        nodes.append(helper.make_node("Identity", ["scaled"], ["picture"]))
    inputs = [helper.make_tensor_value_info(name, TYPES[name], SHAPES[name]) for name in names]
    output = helper.make_tensor_value_info("picture", TensorProto.FLOAT, SHAPES["sample"])
    model = helper.make_model(
        helper.make_graph(nodes, "scale", inputs, [output]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(model, path)
    return path


SPECS = {
    "sample": TensorSpec("sample", ("batch_size", 3, 4, 4), "float32", "noise"),
    "strength": TensorSpec("strength", (), "float32", "features", 0.0, 1.0),
}
OUTPUT = TensorSpec("picture", ("batch_size", 3, 4, 4), "float32", "image", -1.0, 1.0)
PICTURE = Signature((SPECS["strength"], SPECS["sample"]), (OUTPUT,))


class Scale(nn.Module):
    def forward(self, strength: Tensor, sample: Tensor) -> Tensor:
        return strength * sample


@pytest.mark.long
@needs_compiler
@pytest.mark.parametrize("compiled", [True, False])
def test_measured_and_inspected(
    compiled: bool, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = onnx_file(tmp_path / "first.onnx", "strength", "sample")
    last = onnx_file(tmp_path / "last.onnx", "sample", "strength", "flag")
    program = torch.export.export(Scale(), (torch.tensor(0.5), torch.ones(1, 3, 4, 4)))
    pte = tmp_path / "scale.pte"
    EXECUTORCH.lower(program, pte, signature=PICTURE, precision="fp32", metadata={}, options=Export(generate=False))
    if not compiled:  # the runner in Python
        monkeypatch.setenv("PATH", str(tmp_path))
    files = [pte] if not compiled else [first, last, pte]
    for path in files:
        assert sorted(value.shape for value in inspect(path).main.inputs if not value.shape) in ([()], [(), ()])
    measured = profile_files(files, DEVICE, options=FEW, progress=Silent())
    for path, record in zip(files, measured.results, strict=True):
        assert record.verdict.status != "failed", record.verdict.reasons
        assert record.numerics.passed
        assert record.latency is not None
        arrays = read_subject(path).arrays
        assert sorted(array.shape for array in arrays)[0] == ()


def test_sampled_by_a_manifest(tmp_path: Path) -> None:
    for names in (("strength", "sample"), ("sample", "strength")):
        path = onnx_file(tmp_path / "net.onnx", *names)
        signature = Signature(tuple(SPECS[name] for name in names), (OUTPUT,))
        artifact = Artifact(path.name, "onnx", "fp32", nbytes_of(path), sha256_of(path), engine="none")
        parity = {path.name: Parity.not_checked("nothing ran this file", 80.0)}
        write_manifest(tmp_path, [artifact], signature, lineage={}, parity=parity)
        inputs = example_inputs(signature, 70, 0)  # more than one batch of the session
        images = open_artifact(path, "onnx").run(inputs)
        np.testing.assert_allclose(images, inputs["strength"] * inputs["sample"], rtol=1e-6)
