"""onnx_winograd: the transforms by their definition, models against PyTorch in float64."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgegen.exporters.growth import Growth, Layer
from edgegen.exporters.onnx import winograd as onnx_winograd
from edgegen.exporters.onnx.winograd import WinogradSite, transforms, winograd

WIDE = 96  # the least channels that pay


def growth() -> Growth:
    return Growth(10**9)


def model(
    *,
    inputs: int = WIDE,
    outputs: int = WIDE,
    size: tuple[Any, Any] = (16, 20),
    batch: int | str = 1,
    bias: bool = True,
    kernel: int = 3,
    **attributes: Any,
) -> onnx.ModelProto:
    """One convolution and a Relu, opset 18."""
    rng = np.random.default_rng(0)
    attributes = {"pads": [kernel // 2] * 4, "group": 1, **attributes}
    weight = rng.standard_normal((outputs, inputs // attributes["group"], kernel, kernel)) / (9 * inputs) ** 0.5
    tensors = [numpy_helper.from_array(weight.astype(np.float32), "w")]
    if bias:
        tensors.append(numpy_helper.from_array(rng.standard_normal(outputs).astype(np.float32), "b"))
    names = ["x", *(tensor.name for tensor in tensors)]
    nodes = [helper.make_node("Conv", names, ["y"], **attributes), helper.make_node("Relu", ["y"], ["z"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, inputs, *size])
    made = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", "c", "h", "w"])
    graph = helper.make_graph(nodes, "graph", [given], [made], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(made: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    out: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return out


def torch_conv(made: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float64]:
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()).double() for t in made.graph.initializer}
    y = torch.nn.functional.conv2d(torch.from_numpy(x).double(), tensors["w"], tensors.get("b"), padding=1)
    out: NDArray[np.float64] = y.relu().numpy()
    return out


def test_the_transforms_are_a_convolution() -> None:
    one = transforms()
    rng = np.random.default_rng(1)
    g, d = rng.standard_normal(3), rng.standard_normal(6)
    np.testing.assert_allclose(one.at @ ((one.g @ g) * (one.bt @ d)), np.correlate(d, g), atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("declared", "batch"), [(1, 1), (2, 2), ("batch_size", 3)])
def test_a_convolution_stays_what_it_is(declared: int | str, batch: int, bias: bool) -> None:
    made = model(batch=declared, bias=bias, outputs=112)
    x = np.random.default_rng(2).standard_normal((batch, WIDE, 16, 20)).astype(np.float32)
    expected, nbytes = torch_conv(made, x), made.ByteSize()
    assert winograd(made, growth()) == 1
    onnx.checker.check_model(made, full_check=True)
    assert "Relu" in [node.op_type for node in made.graph.node]
    error = np.abs(run(made, x) - expected).max() / np.abs(expected).max()
    assert 0 < error < 1e-5
    assert made.ByteSize() < nbytes + 20_000


def test_a_convolution_without_padding_stays_what_it_is() -> None:
    made = model(size=(18, 22), pads=[0] * 4)
    x = np.random.default_rng(2).standard_normal((1, WIDE, 18, 22)).astype(np.float32)
    expected = torch_conv(made, x)[:, :, 1:-1, 1:-1]  # the padded one without its border
    assert winograd(made, growth()) == 1
    error = np.abs(run(made, x) - expected).max() / np.abs(expected).max()
    assert 0 < error < 1e-5


def test_onnxruntime_transforms_the_weights_when_it_loads(tmp_path: Any) -> None:
    import onnxruntime

    made = model()
    winograd(made, growth())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx")
    constants = {tensor.name for tensor in loaded.graph.initializer}
    groups = [node for node in loaded.graph.node if node.op_type == "Conv" and node.input[1] in constants]
    assert len(groups) == 2


def test_constants_are_shared_and_names_unique() -> None:
    first, second = model(bias=False), model()
    del first.graph.node[1:]
    second.graph.node[0].input[0], second.graph.node[0].output[0] = "y", "y2"
    second.graph.node[1].input[0] = "y2"
    for node in second.graph.node:
        first.graph.node.append(node)
    first.graph.initializer.append(second.graph.initializer[1])
    first = onnx.shape_inference.infer_shapes(first)
    assert winograd(first, growth()) == 2
    onnx.checker.check_model(first, full_check=True)
    names = [tensor.name for tensor in first.graph.initializer]
    assert len(names) == len(set(names))
    assert names.count("winograd_tiles") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"size": (15, 16)},
        {"size": (8, 8)},
        {"size": ("height", "width")},
        {"inputs": 64},
        {"outputs": 100},
        {"kernel": 1},
        {"kernel": 5},
        {"pads": [0, 0, 0, 0]},  # 14 x 18 are left of 16 x 20
        {"pads": [0, 0, 1, 1]},
        {"strides": [2, 2]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"group": 2},
        {"auto_pad": "SAME_UPPER", "pads": None},
    ],
    ids=str,
)
def test_the_rest_is_left_alone(options: dict[str, Any]) -> None:
    made = model(**{key: value for key, value in options.items() if value is not None or key != "pads"})
    if "auto_pad" in options:
        attributes = made.graph.node[0].attribute
        attributes.remove(next(attribute for attribute in attributes if attribute.name == "pads"))
    before = made.SerializeToString(deterministic=True)
    assert winograd(made, growth()) == 0
    assert made.SerializeToString(deterministic=True) == before


def test_weights_that_are_computed_stay() -> None:
    made = model()
    weight = made.graph.initializer[0]
    weight.name = "stored"
    made.graph.node.insert(0, helper.make_node("Identity", ["stored"], ["w"]))
    assert winograd(made, growth()) == 0


def test_memory_goes_to_the_largest_pictures() -> None:
    small, large = WinogradSite(onnx.NodeProto(), 96, 96, 16, 16), WinogradSite(onnx.NodeProto(), 96, 96, 32, 32)
    assert large.memory == 4 * (36 - 9) * 96 * 96
    layers = {0: Layer("small", small.memory, small.pixels), 2: Layer("large", large.memory, large.pixels)}
    enough = Growth(large.memory)
    assert enough.choose(layers, rewrite="winograd") == [2]
    assert enough.facts() == {"plain_for_memory": {"winograd": ["small"]}}
    made, too_little = model(), Growth(large.memory - 1)
    assert winograd(made, too_little) == 0
    assert list(too_little.plain) == ["winograd"]


def test_where_it_pays() -> None:
    node = onnx.NodeProto()
    assert onnx_winograd.LEAST_CHANNELS == WIDE
    assert WinogradSite(node, 96, 96, 16, 16).pays
    assert not WinogradSite(node, 96, 80, 16, 16).pays
    assert not WinogradSite(node, 96, 96, 12, 16).pays
    assert not WinogradSite(node, 104, 96, 16, 16).pays
