"""onnx w8a8: which tensors become 8 bits and how, that the file keeps its identity, and what is refused."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from edgegen.capture import capture
from edgegen.errors import ExportError
from edgegen.exporters.onnx import BACKEND
from edgegen.parity import check
from edgegen.quantize.calibrate import calibration_batches
from edgegen.quantize.onnx import quantize_w8a8

if TYPE_CHECKING:
    from tests.quantize.conftest import Tiny


@pytest.fixture(scope="session")
def floating(tiny: "Tiny", tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "float.onnx"
    program = capture(tiny.module, tiny.signature, batch=None)
    BACKEND.lower(program, path, signature=tiny.signature, precision="fp32", metadata={"seed": "7"})
    return path


def quantized(tiny: "Tiny", floating: Path, path: Path) -> onnx.ModelProto:
    quantize_w8a8(floating, path, calibration_batches(tiny.signature, samples=256, seed=3, batch=32))
    return onnx.load(path)


def test_kernels_become_7_bit_per_channel_and_the_rest_stays(tiny: "Tiny", floating: Path, tmp_path: Path) -> None:
    model = quantized(tiny, floating, tmp_path / "q.onnx")
    tensors = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    kernels = {name: value for name, value in tensors.items() if value.dtype == np.int8 and value.ndim == 4}
    assert len(kernels) == sum(node.op_type == "Conv" for node in model.graph.node)
    # Two products of a uint8 and a weight within +-64 fit 16 bits: no core saturates.
    assert max(int(np.abs(value.astype(int)).max()) for value in kernels.values()) <= 64
    for name, kernel in kernels.items():
        scale = tensors[name.replace("_quantized", "_scale")]
        assert scale.shape == kernel.shape[:1]
    floats = {value.shape for value in tensors.values() if value.dtype == np.float32 and value.ndim > 1}
    assert (4, 32) in floats, "the class table stays float"
    zero_points = [value for name, value in tensors.items() if name.endswith("_zero_point") and value.ndim == 0]
    # int32 are the biases', int8 would be activations'.
    assert {value.dtype.name for value in zero_points} == {"uint8", "int32"}


def test_products_of_activations_stay_float(tiny: "Tiny", floating: Path, tmp_path: Path) -> None:
    model = quantized(tiny, floating, tmp_path / "q.onnx")
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == 2
    assert all(made_by[name] != "DequantizeLinear" for node in products for name in node.input)


def test_it_is_true_and_keeps_the_identity_of_its_source(tiny: "Tiny", floating: Path, tmp_path: Path) -> None:
    model, source = quantized(tiny, floating, tmp_path / "q.onnx"), onnx.load(floating)
    assert (model.producer_name, model.producer_version) == (source.producer_name, source.producer_version)
    assert list(model.metadata_props) == list(source.metadata_props)
    parity = check(BACKEND.open(tmp_path / "q.onnx"), tiny.inputs, tiny.expected, floor_db=30.0)
    assert parity.status == "ok", parity


def test_the_same_file_gives_the_same_bytes_and_no_chatter(
    tiny: "Tiny", floating: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = list(logging.getLogger().handlers)
    for name in ("a.onnx", "b.onnx"):
        quantized(tiny, floating, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert [record for record in caplog.records if record.name == "root"] == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers


def test_what_cannot_be_quantized_is_an_export_error(tiny: "Tiny", tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    batches = calibration_batches(tiny.signature, samples=1, seed=3, batch=1)
    with pytest.raises(ExportError, match="onnxruntime could not quantize the graph"):
        quantize_w8a8(tmp_path / "broken.onnx", tmp_path / "q.onnx", batches)
