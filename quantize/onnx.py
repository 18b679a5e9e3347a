"""ONNX fp16, by onnxruntime's converter."""

from pathlib import Path
from typing import Any

import numpy as np

from edgegen.errors import ExportError
from edgegen.support.extras import require

FLOAT16_MAX = 65504.0
MASK = 3e4  # two of them, as a causal and a padding mask add up to, are finite in float16; exp(-3e4 + x) is 0 for any x
ENDS = ("MatMul", "Gemm", "Conv")  # what is fast in float16, and reads no mask itself


def to_fp16(source: Path, target: Path) -> None:
    """Read the float file `source`, write `target`: weights and arithmetic in float16, inputs and outputs as before.

    Raises ExportError where onnxruntime's converter fails.
    """
    require("onnx", purpose="converting an ONNX file to float16")
    try:
        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        from edgegen.program.float16_range import NAME_END  # here, because it imports torch

        model = onnx.load(source)
        named = onnx.load(source)
        kept = [node.name for node in named.graph.node if node.name.endswith(NAME_END)]
        blocked = [*_cut_masks(named.graph), *kept]
        half = convert_float_to_float16(named, keep_io_types=True, **({"node_block_list": blocked} if blocked else {}))
        _join(half.graph, set(kept))
        del half.graph.value_info[:]  # it keeps some types as they were
        ONNXModel(half).topological_sort()  # the casts of the inputs come after their readers
        _keep_identity(half, model)
        onnx.checker.check_model(half, full_check=True)
    except Exception as e:
        raise ExportError(f"onnxruntime could not convert the graph to float16: {e}") from e
    target.write_bytes(half.SerializeToString(deterministic=True))


def _cut_masks(graph: Any) -> list[str]:
    """Gives numbers that float16 does not hold, such as a mask's finfo.min, the value MASK, in place.

    The names of the nodes from there to the softmax: on their way to float32 and back, masked numbers that are alike
    in float16 become alike, which onnxruntime's kernels for the CPU, of float32 inside, would not do.
    """
    from onnx.numpy_helper import from_array, to_array

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    masks = set()
    for name, tensor in tensors.items():
        values = to_array(tensor)
        if values.dtype != np.float32:
            continue
        too_large = (np.abs(values) > FLOAT16_MAX) & np.isfinite(values)
        if too_large.any():
            cut = np.where(too_large, np.copysign(np.float32(MASK), values), values)
            tensor.CopyFrom(from_array(cut.astype(np.float32), tensor.name))
            masks.add(name)
    names = []
    for node in graph.node:  # in the order in which they run
        if node.op_type not in ENDS and masks.intersection(node.input):
            names.append(node.name)
            if node.op_type != "Softmax":
                masks.update(node.output)
    return names


def _join(graph: Any, kept: set[str]) -> None:
    """Has nodes that stay float32 read each other's results as they are, in place: the converter has them go by way of
    float16, where they overflow."""
    from onnx import TensorProto

    producers = {name: node for node in graph.node for name in node.output}

    def cast_from(name: str, kind: int) -> str | None:
        """The tensor that `name` is the cast of, to `kind`."""
        node: Any = producers.get(name)
        is_cast = node is not None and node.op_type == "Cast" and node.attribute[0].i == kind
        return str(node.input[0]) if is_cast else None

    for node in graph.node:
        for place, name in enumerate(node.input):
            half = cast_from(name, TensorProto.FLOAT)
            full = None if half is None else cast_from(half, TensorProto.FLOAT16)
            if full in producers and producers[full].name in kept:
                node.input[place] = full
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if node.op_type == "Cast" and not used.intersection(node.output)]:
        graph.node.remove(node)


def _keep_identity(quantized: Any, source: Any) -> None:
    """onnxruntime signs the file as its own and notes its steps; the producer and metadata of `source` come back."""
    quantized.producer_name, quantized.producer_version = source.producer_name, source.producer_version
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(source.metadata_props)
