"""The quantization schemes of ONNX files, the default first; for the origin of the floors see pt2e_cells.py."""

from edgegen.exporters.pt2e_cells import activations_cell, weights_cell
from edgegen.types import SchemeCell

CELLS = {
    "fp32": SchemeCell("float", "fp32", "none", 80.0),
    "w8a8": activations_cell("fp32", "executorch"),
    "mixed": activations_cell("fp32", "executorch"),
    "w8": weights_cell("fp32", "executorch"),
    "fp16": SchemeCell(
        "file", "fp32", "onnxruntime.transformers.float16, float32 in and out", 50.0, "edgegen.quantize.onnx:to_fp16"
    ),
}
