"""Forms for Snapdragon's NPU: the same numbers in onnxruntime as the file that they change, bit by bit."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from onnx_models import run

from edgegen.exporters.onnx import htp
from edgegen.exporters.onnx.graph_facts import sizes_of
from edgegen.exporters.onnx.htp_forms import MOST_AXES, few_axes, filled_pads, longer_convolutions, permutation
from edgegen.exporters.onnx.htp_operators import open_gelus, plain_group_norms, plain_mish, plain_splits

RNG = np.random.default_rng(0)


def model(nodes: list[onnx.NodeProto], x: list[int], y: list[int], **constants: NDArray[Any]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in (("x", x), ("y", y))]
    stored = [from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def changed(made: onnx.ModelProto, form: Callable[[onnx.ModelProto], None]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What it gives before and after `form`."""
    sizes = [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim]
    x = RNG.standard_normal(sizes).astype(np.float32)
    before = run(made, x)
    form(made)
    onnx.checker.check_model(made, full_check=True)
    return before, run(made, x)


def axes(made: onnx.ModelProto) -> int:
    values = onnx.shape_inference.infer_shapes(made).graph.value_info
    return max(len(value.type.tensor_type.shape.dim) for value in values)


SCALE = {"scale": np.float32(0.02), "zero": np.uint8(120)}
ROUNDED = ["scale", "zero"]


@pytest.mark.parametrize("kind", ["Transpose", "Einsum"])
@pytest.mark.parametrize("is_rounded", [False, True])
def test_patches_of_an_image_in_five_axes(kind: str, is_rounded: bool) -> None:
    move = (
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 5, 1, 3, 2, 4])
        if kind == "Transpose"
        else helper.make_node("Einsum", ["b"], ["c"], equation="nhwpqc->nchpwq")
    )
    rounding = [
        helper.make_node("QuantizeLinear", ["a", *ROUNDED], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *ROUNDED], ["b"]),
    ]
    first = helper.make_node("Reshape", ["x", "six"], ["a" if is_rounded else "b"])
    nodes = [first, *(rounding if is_rounded else ()), move, helper.make_node("Reshape", ["c", "four"], ["y"])]
    six, four = np.array([1, 4, 3, 2, 2, 5]), np.array([1, 5, 8, 6])
    made = model(nodes, [1, 12, 20], [1, 5, 8, 6], six=six, four=four, **(SCALE if is_rounded else {}))
    assert axes(made) == MOST_AXES + 1
    before, after = changed(made, few_axes)
    assert np.array_equal(before, after)
    assert axes(made) == MOST_AXES


def test_six_axes_stay_where_something_computes_with_them() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "six"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=1),
        helper.make_node("Reshape", ["b", "two"], ["y"]),
    ]
    made = model(nodes, [1, 64], [1, 64], six=np.array([1, 2, 2, 2, 2, 4]), two=np.array([1, 64]))
    text = made.SerializeToString()
    few_axes(made)
    assert made.SerializeToString() == text


def test_an_einsum_that_sums_or_takes_a_diagonal_is_no_permutation() -> None:
    for equation in ("ij->i", "ii->i", "ij->"):
        assert permutation(helper.make_node("Einsum", ["x"], ["y"], equation=equation)) == []


@pytest.mark.parametrize(("lengths", "size"), [(np.array([1, 2, 3]), 4), (np.int64(3), 3), (np.int64(4), 6)])
def test_parts_of_a_sequence_come_from_one_split(lengths: NDArray[Any], size: int) -> None:
    used = (2, 0) if lengths.ndim else (1, 0)  # the second of three is not used
    if not lengths.ndim and lengths == 3:
        used = (1,)
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["s"], axis=1),
        *(helper.make_node("SequenceAt", ["s", f"at{i}"], [f"p{i}"]) for i in used),
        helper.make_node("Concat", [f"p{i}" for i in used], ["y"], axis=1),
    ]
    made = model(nodes, [1, 6, 2], [1, size, 2], sizes=lengths, **{f"at{i}": np.int64(i) for i in used})
    before, after = changed(made, plain_splits)
    assert np.array_equal(before, after)
    assert [node.op_type for node in made.graph.node] == ["Split", "Concat"]


def test_padding_with_ones_is_a_concatenation() -> None:
    nodes = [helper.make_node("Pad", ["x", "pads", "value"], ["y"])]
    pads = np.array([0, 1, 2, 0, 0, 3])
    made = model(nodes, [1, 4, 5], [1, 5, 10], pads=pads, value=np.float32(1.5))
    before, after = changed(made, filled_pads)
    assert np.array_equal(before, after)
    assert [node.op_type for node in made.graph.node] == ["Concat", "Concat"]


def test_padding_with_zeros_and_reflections_stay() -> None:
    zeros = helper.make_node("Pad", ["x", "pads", "value"], ["a"])
    reflected = helper.make_node("Pad", ["a", "pads"], ["y"], mode="reflect")
    made = model([zeros, reflected], [1, 4], [1, 8], pads=np.array([0, 1, 0, 1]), value=np.float32(0))
    filled_pads(made)
    assert [node.op_type for node in made.graph.node] == ["Pad", "Pad"]


@pytest.mark.parametrize(("shape", "kernel"), [([1, 2, 16], [5]), ([1, 2, 1, 24], [3, 9])])
def test_a_convolution_along_one_axis_gives_one_value_more(shape: list[int], kernel: list[int]) -> None:
    pads = [size // 2 for size in kernel] * 2
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"], pads=pads)]
    weight = RNG.standard_normal((2, 2, *kernel)).astype(np.float32)
    before, after = changed(made := model(nodes, shape, shape, weight=weight), longer_convolutions)
    assert np.allclose(before, after, atol=1e-6)  # another length may take another kernel
    assert [node.op_type for node in made.graph.node] == ["Conv", "Slice"]
    assert sizes_of(made)["y_longer"][-1] == shape[-1] + 1


@pytest.mark.parametrize("is_gated", [False, True])
def test_a_gelu_that_is_rounded_gets_a_node_that_changes_nothing(is_gated: bool) -> None:
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["e"]),
        *([helper.make_node("Mul", ["e", "x"], ["f"])] if is_gated else ()),
        helper.make_node("QuantizeLinear", ["f" if is_gated else "e", *ROUNDED], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *ROUNDED], ["y"]),
    ]
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5), **SCALE}
    made = model(nodes, [1, 64], [1, 64], **constants)
    before, after = changed(made, open_gelus)
    assert np.array_equal(before, after)
    assert ("Max" in [node.op_type for node in made.graph.node]) == (not is_gated)


@pytest.mark.parametrize("shape", [[1, 6, 10], [1, 6, 5, 2]])
def test_a_group_norm_in_parts(shape: list[int]) -> None:
    scale, bias = RNG.standard_normal((2, 6)).astype(np.float32)
    node = helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=3, epsilon=1e-3)
    before, after = changed(made := model([node], shape, shape, scale=scale, bias=bias), plain_group_norms)
    assert np.allclose(before, after, atol=1e-5)
    assert "InstanceNormalization" in [node.op_type for node in made.graph.node]


def test_mish_in_parts() -> None:
    made = model([helper.make_node("Mish", ["x"], ["y"])], [1, 8, 4], [1, 8, 4])
    before, after = changed(made, plain_mish)
    assert np.allclose(before, after, atol=1e-6)
    assert [node.op_type for node in made.graph.node] == ["Softplus", "Tanh", "Mul"]


@pytest.mark.parametrize(("length", "kernel", "stride"), [(16, 3, 1), (16, 5, 2), (15, 5, 1)])
def test_other_convolutions_along_one_axis_stay(length: int, kernel: int, stride: int) -> None:
    pads = [kernel // 2] * 2
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"], pads=pads, strides=[stride])]
    weight = np.ones((2, 2, kernel), np.float32)
    made = model(nodes, [1, 2, length], [1, 2, (length - 1) // stride + 1], weight=weight)
    text = made.SerializeToString()
    longer_convolutions(made)
    assert made.SerializeToString() == text


def test_why_a_node_stays_on_the_cpu(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "six"], ["a"], "wide"),
        helper.make_node("Erf", ["a"], ["b"], "none"),
        helper.make_node("Reshape", ["b", "two"], ["c"], "narrow"),
        helper.make_node("Tanh", ["c"], ["y"], "refused"),
    ]
    made = model(nodes, [1, 64], [8, 8], six=np.array([1, 2, 2, 2, 2, 4]), two=np.array([8, 8]))
    onnx.save(made, tmp_path / "net.onnx")
    log = "QNN.backendValidateOpConfig() failed for node `refused` of type `Tanh` with error code 3110"
    left = [SimpleNamespace(name=node.name, op_type=node.op_type) for node in nodes]
    assert htp.reasons(left, tmp_path / "net.onnx", log) == {
        "Erf": "1, a tensor of 6 axes, and the HTP has 5: reshape it with fewer",
        "Reshape": "2, a tensor of 6 axes, and the HTP has 5: reshape it with fewer",
        "Tanh": "1, Qualcomm's validation refuses it, code 3110",
    }


def test_convolutions_of_images_stay() -> None:
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1] * 4)]
    made = model(nodes, [1, 2, 4, 4], [1, 2, 4, 4], weight=np.ones((2, 2, 3, 3), np.float32))
    text = made.SerializeToString()
    longer_convolutions(made)
    assert made.SerializeToString() == text
