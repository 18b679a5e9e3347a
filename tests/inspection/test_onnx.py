"""`inspect` on ONNX files, against onnx's own reading, torch's count of multiplications and hand-made graphs."""

import json
from collections import Counter
from pathlib import Path

import inspected
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgegen.errors import ExportError
from edgegen.inspection import onnx as inspect_onnx
from edgegen.inspection.record import Inspection, Macs, inspect
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0).to_dict()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inspected.write_onnx(tmp_path_factory.mktemp("onnx") / "net.onnx")


@pytest.fixture(scope="module")
def found(path: Path) -> Inspection:
    return inspect(path)


def test_the_signature_with_its_symbolic_axis(found: Inspection) -> None:
    (taken,) = found.main.inputs
    (given,) = found.main.outputs
    assert (taken.name, taken.dtype, taken.shape[1:]) == ("sample", "float32", (3, 8, 8))
    assert isinstance(taken.shape[0], str)
    assert given.shape[1:] == (3, 32, 32)
    assert found.signature is None


def test_multiplications_are_those_of_torch(found: Inspection) -> None:
    assert found.main.macs == Macs(inspected.macs(inspected.net()), inspected.ATTENTION)


def test_operations_are_those_of_onnx(found: Inspection, path: Path) -> None:
    graph = onnx.load(path).graph
    assert found.main.operations == Counter(node.op_type for node in graph.node)
    (optimised,) = found.main.partitions
    assert optimised.backend == "CPUExecutionProvider"
    assert any(name.startswith("com.microsoft") for name in optimised.operations), optimised


def test_every_weight_of_the_net_is_listed(found: Inspection, path: Path) -> None:
    stored = {weight.name: weight for weight in found.weights}
    for name, parameter in inspected.net().named_parameters():
        if name in stored:  # the linear layers' are stored transposed, under the name of a constant
            assert (stored[name].dtype, stored[name].shape) == ("float32", tuple(parameter.shape))
            assert stored[name].nbytes == 4 * parameter.numel()
    floats = sum(weight.parameters for weight in found.weights if weight.dtype == "float32")
    assert floats >= sum(parameter.numel() for parameter in inspected.net().parameters())
    assert sum(found.bytes_by_kind.values()) == path.stat().st_size


def test_needs_notes_and_hints(found: Inspection, path: Path) -> None:
    assert found.needs[0] == "operator sets: ai.onnx 18"
    assert any("NNAPI provider" in note and "InstanceNormalization" in note for note in found.notes)
    hints = " ".join(found.hints)
    assert "float32" in hints
    assert "axes without a fixed size" in hints
    assert "source paths" in hints


def made(tmp_path: Path, node: onnx.NodeProto, *weights: tuple[str, tuple[int, ...]], **given: list[int]) -> Inspection:
    """A graph of one node: `weights` are initializers, `given` inputs, "y" comes out."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()]
    stored = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights]
    output = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", inputs, output, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    return inspect(tmp_path / "a.onnx")


def test_multiplications_of_hand_made_nodes(tmp_path: Path) -> None:
    matmul = helper.make_node("MatMul", ["a", "b"], ["y"])
    assert made(tmp_path, matmul, a=[2, 3, 4], b=[2, 4, 5]).main.macs == Macs(0, 2 * 3 * 4 * 5)
    assert made(tmp_path, matmul, ("b", (4, 5)), a=[3, 4]).main.macs == Macs(3 * 4 * 5, 0)
    turned = helper.make_node("Gemm", ["a", "b"], ["y"], transA=1)
    assert made(tmp_path, turned, ("b", (4, 5)), a=[4, 3]).main.macs == Macs(3 * 4 * 5, 0)
    einsum = helper.make_node("Einsum", ["a", "b"], ["y"], equation="bhc, bwc -> bhw")
    assert made(tmp_path, einsum, a=[1, 7, 3], b=[1, 5, 3]).main.macs == Macs(0, 7 * 5 * 3)
    grown = helper.make_node("ConvTranspose", ["a", "w"], ["y"], strides=[2, 2])
    assert made(tmp_path, grown, ("w", (3, 4, 2, 2)), a=[1, 3, 5, 5]).main.macs == Macs(25 * 3 * 4 * 4, 0)


def test_what_has_no_shape_is_not_counted_as_nothing(tmp_path: Path) -> None:
    open_axis = helper.make_node("MatMul", ["a", "b"], ["y"])
    found = made(tmp_path, open_axis, ("b", (4, 5)), a=[1, "length", 4])  # type: ignore[list-item]
    assert found.main.macs == Macs(0, 0, ("1 MatMul",))
    assert "length" in " ".join(found.hints)


def test_edgegens_own_metadata_and_a_broken_one(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    model.metadata_props.add(key="edgegen.signature", value=json.dumps(SIGNATURE))
    onnx.save(model, tmp_path / "a.onnx")
    assert inspect(tmp_path / "a.onnx").signature == json.loads(json.dumps(SIGNATURE))
    model.metadata_props[0].value = "{"
    onnx.save(model, tmp_path / "a.onnx")
    assert inspect(tmp_path / "a.onnx").signature is None


def test_a_quantized_weight_counts_as_a_weight(path: Path, tmp_path: Path) -> None:
    quantized = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("DequantizeLinear", ["w", "scale"], ["wide"]),
                helper.make_node("Conv", ["x", "wide"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(np.ones((5, 3, 1, 1), np.int8), "w"),
                numpy_helper.from_array(np.float32(1), "scale"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(quantized, tmp_path / "q.onnx")
    found = inspect(tmp_path / "q.onnx")
    assert found.main.macs == Macs(64 * 3 * 5, 0)
    assert found.bytes_by_kind["weights int8"] == 15


def test_weights_in_a_second_file(path: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(path), tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    found, size = inspect(tmp_path / "a.onnx"), (tmp_path / "a.data").stat().st_size
    assert found.nbytes == (tmp_path / "a.onnx").stat().st_size + size
    assert found.main.macs.weights == inspected.macs(inspected.net())
    (tmp_path / "a.data").write_bytes(bytes(size // 2))
    with pytest.raises(ExportError, match=r"cannot read a.onnx: 'a.data' is cut short \(\d+ bytes\); copy it again"):
        inspect(tmp_path / "a.onnx")
    (tmp_path / "a.data").unlink()
    with pytest.raises(ExportError, match=r"cannot read a.onnx: its weights are in 'a.data', which is not beside it"):
        inspect(tmp_path / "a.onnx")


def test_ort_format_holds_the_same(tmp_path: Path, path: Path) -> None:
    fixed = onnx.load(path)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]
    onnx.save(fixed, tmp_path / "fixed.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "a.ort")
    onnxruntime.InferenceSession(str(tmp_path / "fixed.onnx"), options, providers=["CPUExecutionProvider"])
    found = inspect(tmp_path / "a.ort")
    assert found.main.macs == Macs(inspected.macs(inspected.net()), inspected.ATTENTION)
    assert [(value.name, value.shape) for value in found.main.inputs] == [("sample", (1, 3, 8, 8))]
    assert found.main.operations["Conv"] == 3
    floats = sum(weight.parameters for weight in found.weights if weight.dtype == "float32")
    assert floats >= sum(parameter.numel() for parameter in inspected.net().parameters())
    content = (tmp_path / "a.ort").read_bytes()
    for cut in (content[:6], content[: len(content) // 2], path.read_bytes()):
        (tmp_path / "cut.ort").write_bytes(cut)
        with pytest.raises(ExportError, match=rf"cannot read cut.ort \({len(cut)} bytes\)"):
            inspect(tmp_path / "cut.ort")


def test_what_onnxruntime_refuses_is_a_note(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = made(tmp_path, helper.make_node("Unheard", ["a"], ["y"], domain="ours"), a=[1, 2])
    assert odd.main.partitions == ()
    assert any("onnxruntime" in note and "cannot open it" in note for note in odd.notes)
    assert any("outside the ONNX standard: ours" in need for need in odd.needs)
    assert capfd.readouterr().out == ""
    monkeypatch.setattr(inspect_onnx, "SESSION_LIMIT", 10)
    assert "onnxruntime's optimised graph: not checked (0.0 GB)" in inspect(path).notes
