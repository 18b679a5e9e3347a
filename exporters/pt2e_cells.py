"""The cells whose program torchao's PT2E quantizes before lowering: the same function for every backend."""

from typing import Literal

from edgegen.types import SchemeCell

ENGINE = "torchao PT2E, XNNPACKQuantizer"
FUNCTION = "edgegen.quantize.pt2e:quantize"
# Floors of all backends' cells: some 10 dB or more under what an 8x8 EdgeUNet of 258 k parameters gave, trained and
# with random weights: fp32 130 to 140 dB (runtimes reorder sums), fp16 66 to 70, w8 48 to 54, w8a8 35 to 40; the demo
# student with random weights: w6 47, w4-block 36, w4 34.
ACTIVATIONS_DB, WEIGHTS_DB = 25.0, 35.0


def activations_cell(precision: Literal["fp32", "fp16"], *extras: str) -> SchemeCell:
    """Weights and activations of 8 bits, in every layer (w8a8) or in those that a budget allows (mixed)."""
    return SchemeCell("program", precision, ENGINE, ACTIVATIONS_DB, FUNCTION, extras, calibrated=True)


def weights_cell(precision: Literal["fp32", "fp16"], *extras: str) -> SchemeCell:
    """Weights of 8 bits (w8)."""
    return SchemeCell("program", precision, ENGINE, WEIGHTS_DB, FUNCTION, extras)
