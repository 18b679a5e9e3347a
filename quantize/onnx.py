"""ONNX fp16, by onnxruntime's converter."""

from pathlib import Path
from typing import Any

from edgegen.errors import ExportError
from edgegen.support.extras import require


def to_fp16(source: Path, target: Path) -> None:
    """Read the float file `source`, write `target`: weights and arithmetic in float16, inputs and outputs as before.

    Raises ExportError where onnxruntime's converter fails.
    """
    require("onnx", purpose="converting an ONNX file to float16")
    try:
        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = onnx.load(source)
        half = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        del half.graph.value_info[:]  # it keeps some types as they were
        ONNXModel(half).topological_sort()  # the casts of the inputs come after their readers
        _keep_identity(half, model)
        onnx.checker.check_model(half, full_check=True)
    except Exception as e:
        raise ExportError(f"onnxruntime could not convert the graph to float16: {e}") from e
    target.write_bytes(half.SerializeToString(deterministic=True))


def _keep_identity(quantized: Any, source: Any) -> None:
    """onnxruntime signs the file as its own and notes its steps; the producer and metadata of `source` come back."""
    quantized.producer_name, quantized.producer_version = source.producer_name, source.producer_version
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(source.metadata_props)
