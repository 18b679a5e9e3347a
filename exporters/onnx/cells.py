"""The quantization schemes of ONNX files, the default first; for the origin of the floors see pt2e_cells.py."""

from dataclasses import replace

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

# Of the variant "qnn", whose NPU computes what is not rounded in float16: some 20 dB under what the HTP simulator gave
# for float16 files (examples/bench_qnn.md), and 15 under w8a16 ones.
NPU_CELLS = {
    "w8a8": activations_cell("fp32", "executorch", "qnn"),
    "w8a16": replace(activations_cell("fp32", "executorch", "qnn"), floor_db=35.0),
    "fp16": SchemeCell("float", "fp32", "float16 arithmetic of the NPU", 50.0, extras=("qnn",)),
}
