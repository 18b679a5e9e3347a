"""onnx: every cell on every tiny generator; names, axes, metadata, no trace of the builder, the same bytes twice."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import ExportError, MissingExtraError
from edgegen.exporters.onnx.backend import BACKEND
from edgegen.program.capture import capture
from edgegen.types import Signature

if TYPE_CHECKING:
    from tests.exporters.conftest import Tiny


def lower(tiny: "Tiny", path: Path, *, batch: int | None = None) -> Path:
    program = capture(tiny.module, tiny.signature, batch=batch)
    BACKEND.lower(program, path, signature=tiny.signature, precision="fp32", metadata={"seed": "7"})
    return path


@pytest.fixture(scope="module")
def lowered(tiny: "Tiny", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lower(tiny, tmp_path_factory.mktemp("onnx") / "tiny.onnx")


def test_names_axes_and_metadata(lowered: Path) -> None:
    model = onnx.load(lowered)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    image = ["batch_size", 1, 8, 8]
    assert shapes == {"sample": image, "class_labels": ["batch_size"], "out_sample": image}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert (model.producer_name, model.doc_string) == ("edgegen", "")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert set(metadata) == {"edgegen.seed", "edgegen.signature"}
    assert json.loads(metadata["edgegen.signature"])["num_classes"] == 10
    assert not any(node.metadata_props for node in model.graph.node)


def test_no_shape_is_computed_that_is_known(lowered: Path) -> None:
    """torch writes a GroupNorm that asks for its shape at every run, though only the batch of the labels is open."""
    model = onnx.load(lowered)
    asked = [node.input[0] for node in model.graph.node if node.op_type == "Shape"]
    assert set(asked) <= {"class_labels"}, asked


def test_the_same_program_gives_the_same_bytes(tiny: "Tiny", lowered: Path, tmp_path: Path) -> None:
    assert lower(tiny, tmp_path / "again.onnx").read_bytes() == lowered.read_bytes()


def test_any_batch_and_a_static_one(tiny: "Tiny", lowered: Path, tmp_path: Path) -> None:
    static = BACKEND.open(lower(tiny, tmp_path / "one.onnx", batch=1))
    single = {name: values[:1] for name, values in tiny.inputs.items()}
    for session in (BACKEND.open(lowered), static):
        np.testing.assert_allclose(session(single)["out_sample"], tiny.expected[:1], atol=1e-5)
    np.testing.assert_allclose(static(tiny.inputs)["out_sample"], tiny.expected, atol=1e-5)
    with pytest.raises(ExportError, match=r"onnxruntime refused sample float32\[12, 1, 8, 7\].*invalid dimensions"):
        BACKEND.open(lowered)({**tiny.inputs, "sample": tiny.inputs["sample"][..., :7]})


def test_what_is_not_an_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    with pytest.raises(ExportError, match=r"onnxruntime cannot open .*broken.onnx"):
        BACKEND.open(tmp_path / "broken.onnx")


def test_other_precisions_are_refused(tiny: "Tiny", tmp_path: Path) -> None:
    program = capture(tiny.module, tiny.signature, batch=None)
    with pytest.raises(ExportError, match="the onnx backend writes fp32, not fp16"):
        BACKEND.lower(program, tmp_path / "a.onnx", signature=tiny.signature, precision="fp16", metadata={})


def test_a_program_that_torch_cannot_lower_is_an_export_error(tiny: "Tiny", tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch.onnx could not lower the program"):
        BACKEND.lower("no program", tmp_path / "a.onnx", signature=tiny.signature, precision="fp32", metadata={})  # type: ignore[arg-type]


def test_without_the_extra_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"running an ONNX file needs 'onnxruntime'.*edgegen\[onnx\]"):
        BACKEND.open(tmp_path / "a.onnx")


class Shares(nn.Module):
    """Each positive number's share in their sum, which is 0 for an image without any, as linear attention divides."""

    def forward(self, sample: Tensor) -> Tensor:
        positive = torch.relu(sample)
        return positive / (positive.sum(dim=(1, 2, 3), keepdim=True) + 1e-15)


def test_a_tiny_number_that_keeps_a_division_by_zero_away_is_kept(tmp_path: Path) -> None:
    signature = Signature.of(channels=1, size=4, num_classes=0)
    program = capture(nn.Sequential(nn.Conv2d(1, 1, 1), Shares()).eval(), signature, batch=None)
    BACKEND.lower(program, tmp_path / "a.onnx", signature=signature, precision="fp32", metadata={})
    module = program.module(check_guards=False)
    for value in (-9.0, 9.0):  # the sum of one of them is 0
        sample = torch.full((2, 1, 4, 4), value)
        out = BACKEND.open(tmp_path / "a.onnx")({"sample": sample.numpy()})["out_sample"]
        np.testing.assert_allclose(out, module(sample).detach().numpy(), rtol=1e-5)
