"""ONNX w8a8 (onnxruntime's static quantization in QDQ form, calibrated on noise) and fp16."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgegen.errors import ExportError
from edgegen.extras import require
from edgegen.quantize.calibrate import Batches

# The products that carry weights. The rest (norms, SiLU, additions, the class table) stays float: it holds under 5 %
# of the bytes, and quantizing every operator either fails in onnxruntime 1.32 or costs time.
OPERATORS = ("Conv", "Gemm", "MatMul")


def quantize_w8a8(source: Path, target: Path, calibration: Batches) -> None:
    """Read the float file `source`, write `target`: int8 weights per channel, uint8 activations per tensor.

    Weights use 7 of their 8 bits: x86 cores without VNNI add two uint8 x int8 products in 16 bits, which overflow
    with full weights and cannot with halved ones (2 x 255 x 64 < 2^15). It costs 0.3 to 0.8 dB and makes the file
    compute the same on every x86 and ARM core. Raises ExportError where onnxruntime cannot quantize the graph.
    """
    require("onnx", purpose="quantizing an ONNX file")
    try:
        import onnx
        from onnxruntime import quantization as ort

        model = onnx.load(source)
        with _quiet():
            ort.quantize_static(
                source,
                target,
                _reader(ort, calibration),
                quant_format=ort.QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                nodes_to_exclude=_weightless(model),
                per_channel=True,
                reduce_range=True,
                activation_type=ort.QuantType.QUInt8,
                weight_type=ort.QuantType.QInt8,
                calibrate_method=ort.CalibrationMethod.MinMax,
            )
        quantized = onnx.load(target)
        _keep_identity(quantized, model)
        onnx.checker.check_model(quantized, full_check=True)
    except Exception as e:
        raise ExportError(f"onnxruntime could not quantize the graph: {e}") from e
    target.write_bytes(quantized.SerializeToString(deterministic=True))


def to_fp16(source: Path, target: Path, calibration: Batches) -> None:
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


def _weightless(model: Any) -> list[str]:
    """The products of two activations (attention): no weights to shrink, and softmax suffers in 8 bits."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and not weights & set(node.input)]


def _keep_identity(quantized: Any, source: Any) -> None:
    """onnxruntime signs the file as its own and notes its steps; the producer and metadata of `source` come back."""
    quantized.producer_name, quantized.producer_version = source.producer_name, source.producer_version
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(source.metadata_props)


def _reader(ort: Any, calibration: Sequence[dict[str, Any]]) -> Any:
    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime asks on the root logger for a pre-processing that fails on dynamic shapes and gains nothing here."""
    root, silent = logging.getLogger(), logging.NullHandler()

    def keep(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root.addFilter(keep)
    root.addHandler(silent)  # or logging.warning would install a handler of its own for good
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.removeFilter(keep)
