"""What tests with a real browser share: whether there is one, a net that takes it milliseconds, what must hold."""

from pathlib import Path
from typing import Any

import device_parts
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgegen.profilers.devices import browser

REASON = device_parts.no_browser()
needs_browser = pytest.mark.skipif(REASON is not None, reason=f"{REASON}")
SIZE = 256


def layers(path: Path, *, beside: bool = False) -> Path:
    """Three layers of numbers, some milliseconds of work; `beside`: their weights in a file of their own."""
    numbers = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((numbers.standard_normal((SIZE, SIZE)) / SIZE**0.5).astype(np.float32), f"w{index}")
        for index in range(3)
    ]
    nodes, last = [], "sample"
    for index in range(3):
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Tanh", [f"m{index}"], [last := f"t{index}"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE, SIZE]) for name in ("sample", last)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path, save_as_external_data=beside, location=f"{path.name}.data")
    return path


def right(one: Any) -> None:
    assert one.numerics.passed
    assert one.numerics.snr_db > 100
    assert one.latency is not None
    assert one.config.runtime == f"onnxruntime-web {browser.VERSION} on wasm"
