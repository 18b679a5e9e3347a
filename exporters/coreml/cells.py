"""The quantization schemes of Core ML packages, the default first; for the origin of the floors see pt2e_cells.py."""

from edgegen.exporters.pt2e_cells import activations_cell
from edgegen.types import SchemeCell

PALETTE_4 = (
    "verify on the device: 4-bit palettes by coremltools 9.0 were wrong or crashed on the Neural Engine for some nets "
    "(coremltools #2716)"
)
CELLS = {
    "fp16": SchemeCell("float", "fp16", "none", 50.0),
    "fp32": SchemeCell("float", "fp32", "none", 80.0),
    "w8a8": activations_cell("fp16", "executorch"),
    "mixed": activations_cell("fp16", "executorch"),
    "w8": SchemeCell(
        "file", "fp16", "coremltools.optimize linear int8 weights", 35.0, "edgegen.quantize.coreml:quantize_w8"
    ),
    "w6": SchemeCell(
        "file", "fp16", "coremltools.optimize palettes of 64, k-means", 30.0, "edgegen.quantize.coreml:palettize_w6"
    ),
    "w4": SchemeCell(
        "file",
        "fp16",
        "coremltools.optimize palettes of 16, k-means",
        15.0,
        "edgegen.quantize.coreml:palettize_w4",
        caution=PALETTE_4,
    ),
    "w4-block": SchemeCell(
        "file",
        "fp16",
        "coremltools.optimize linear int4 weights in blocks of 32",
        20.0,
        "edgegen.quantize.coreml:quantize_w4_block",
    ),
}
# What the device's system must have for a scheme: a key of FEATURES in backend.py.
SCHEME_FEATURES = {"w4-block": "weights of 4 bits in blocks"}
