"""onnx_unsigned: the same numbers bit by bit, in uint8; a model of other quantizers stays."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from edgegen.exporters.onnx.unsigned import unsigned


def model(between: str) -> onnx.ModelProto:
    """Q -> `between` -> DQ of (2, 3), and a weight in int8 that is added."""
    scale, zero = from_array(np.float32(0.1), "scale"), from_array(np.int8(-7), "zero")
    weight = from_array(np.arange(-3, 3, dtype=np.int8).reshape(3, 2), "weight")
    axes = {"perm": [1, 0]} if between == "Transpose" else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node(between, ["q"], ["m"], **axes),
        helper.make_node("DequantizeLinear", ["m", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["w"]),
        helper.make_node("Add", ["d", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 2])],
        [scale, zero, weight],
        value_info=[helper.make_tensor_value_info("q", TensorProto.INT8, [2, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(made: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: NDArray[Any] = session.run(None, {"x": x})[0]
    return found


def test_not_one_number_changes_and_weights_stay_int8() -> None:
    x = np.linspace(-20, 20, 6, dtype=np.float32).reshape(2, 3)  # beyond the range on both sides
    made = model("Transpose")
    expected = run(made, x)
    unsigned(made)
    onnx.checker.check_model(made, full_check=True)
    assert np.array_equal(run(made, x), expected)
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds == {
        "scale": TensorProto.FLOAT,
        "zero": TensorProto.INT8,
        "weight": TensorProto.INT8,
        "zero_unsigned": TensorProto.UINT8,
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
