"""The quantization schemes of ExecuTorch files, the default first; for the origin of the floors see pt2e_cells.py."""

from edgegen.exporters.pt2e_cells import activations_cell
from edgegen.types import SchemeCell

CELLS = {
    "fp32": SchemeCell("float", "fp32", "none", 80.0),
    "w8a8": activations_cell("fp32"),
    "mixed": activations_cell("fp32"),
}
