"""prelu: the same numbers as onnxruntime's own PRelu; slopes that are computed, and other inputs, stay."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgegen.exporters.onnx.prelu import prelu


def model(*, slope_shape: tuple[int, ...] = (16, 1, 1), behind: str = "Conv") -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    slope = rng.uniform(-1.0, 2.0, slope_shape).astype(np.float32)
    weight = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    names = ["x", "w"] if behind == "Conv" else ["x"]
    nodes = [
        helper.make_node(behind, names, ["y"], **({"pads": [1] * 4} if behind == "Conv" else {})),
        helper.make_node("PRelu", ["y", "a"], ["z"], name="act"),
    ]
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(slope, "a")]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16, "h", "w_"]) for name in ("x", "z")]
    graph = helper.make_graph(nodes, "graph", value[:1], value[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(made: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    out: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return out


@pytest.mark.parametrize("slope_shape", [(16, 1, 1), (1, 16, 1, 1)])
def test_the_numbers_stay(slope_shape: tuple[int, ...]) -> None:
    made, x = model(slope_shape=slope_shape), np.random.default_rng(1).standard_normal((2, 16, 6, 9)).astype(np.float32)
    expected = run(made, x)
    assert prelu(made) == 1
    onnx.checker.check_model(made, full_check=True)
    assert "PRelu" not in [node.op_type for node in made.graph.node]
    np.testing.assert_allclose(run(made, x), expected, atol=2e-6 * np.abs(expected).max())


OTHERS: list[dict[str, object]] = [{"slope_shape": (1,)}, {"slope_shape": (16, 1, 9)}, {"behind": "Identity"}]


@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_others_stay(options: dict[str, object]) -> None:
    made = model(**options)  # type: ignore[arg-type]
    before = made.SerializeToString(deterministic=True)
    assert prelu(made) == 0
    assert made.SerializeToString(deterministic=True) == before
