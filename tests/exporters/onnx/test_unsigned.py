"""onnx_unsigned: the same numbers bit by bit, in uint8; a model of other quantizers stays."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from onnx_models import run

from edgegen.exporters.onnx.unsigned import unsigned


def model(between: str, signed: type = np.int8) -> onnx.ModelProto:
    """Q -> `between` -> DQ of (2, 3) in numbers of a type, and a weight in int8 that is added."""
    scale, zero = from_array(np.float32(0.1), "scale"), from_array(signed(-7), "zero")
    weight = from_array(np.arange(-3, 3, dtype=np.int8).reshape(3, 2), "weight")
    axes = {"perm": [1, 0]} if between == "Transpose" else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node(between, ["q"], ["m"], **axes),
        helper.make_node("DequantizeLinear", ["m", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["w"]),
        helper.make_node("Add", ["d", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 2])],
        [scale, zero, weight],
        value_info=[helper.make_tensor_value_info("q", helper.np_dtype_to_tensor_dtype(np.dtype(signed)), [2, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("signed", "changed"), [(np.int8, TensorProto.UINT8), (np.int16, TensorProto.UINT16)], ids=["int8", "int16"]
)
def test_not_one_number_changes_and_weights_stay_int8(signed: type, changed: int) -> None:
    furthest = np.iinfo(signed).max * 0.16  # beyond the range on both sides
    x = np.linspace(-furthest, furthest, 6, dtype=np.float32).reshape(2, 3)
    made = model("Transpose", signed)
    expected = run(made, x)
    unsigned(made)
    onnx.checker.check_model(made, full_check=True)
    assert np.array_equal(run(made, x), expected)
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds == {
        "scale": TensorProto.FLOAT,
        "weight": TensorProto.INT8,
        "zero_unsigned": changed,
    }


def test_a_model_with_an_operator_that_looks_at_the_numbers_stays() -> None:
    made = model("Abs")
    unsigned(made)
    assert made == model("Abs")


def test_a_model_whose_zero_point_is_computed_stays() -> None:
    made = model("Transpose")
    made.graph.node.insert(0, helper.make_node("Identity", ["zero"], ["computed"]))
    made.graph.node[1].input[2] = "computed"
    before = made.SerializeToString()
    unsigned(made)
    assert made.SerializeToString() == before
