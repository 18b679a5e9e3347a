"""Which quantization scheme exists for which backend, what does it and how true it must stay. Imports no vendor."""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edgegen.errors import UsageError

Stage = Literal["float", "program", "file"]


@dataclass(frozen=True)
class Cell:
    """One scheme on one backend.

    `stage` is what `function` takes and where it sits in the build:

        float     nothing; `lower` alone makes the file
        program   f(program, scheme, calibration, options) -> module between capture and lowering; any batch
        file      f(source, target) -> None                       after the lowering of the float file

    `function` is "module:attribute", imported on demand; `precision` is what the backend lowers to; `engine` says in
    words what quantizes; `floor_db` is the parity below which the file is refused; `extras` are those to be installed
    beside the backend's own; `calibrated` says that the function uses its calibration; `feature` is what the device's
    system must have (a key of FEATURES in the Core ML exporter), `caution` what to know before shipping the file.
    """

    stage: Stage
    precision: Literal["fp32", "fp16"]
    engine: str
    floor_db: float
    function: str | None = None
    extras: tuple[str, ...] = ()
    calibrated: bool = False
    feature: str = ""
    caution: str = ""

    def load(self) -> Callable[..., Any]:
        """The function behind `function`; not for "float" cells, which have none."""
        assert self.function is not None, f"a '{self.stage}' cell without a function"
        module, _, attribute = self.function.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return found


PALETTE_4 = (
    "verify on the device: 4-bit palettes by coremltools 9.0 were wrong or crashed on the Neural Engine for some nets "
    "(coremltools #2716)"
)
PT2E, PT2E_EXTRA = "torchao PT2E, XNNPACKQuantizer", "executorch"
# Floors, some 10 dB or more under what an 8x8 EdgeUNet of 258 k parameters gave, trained and with random weights:
# fp32 130 to 140 dB (runtimes reorder sums), fp16 66 to 70, w8 48 to 54, w8a8 35 to 40; the demo student with random
# weights: w6 47, w4-block 36, w4 34.
MATRIX: dict[tuple[str, str], Cell] = {
    ("fp32", "onnx"): Cell("float", "fp32", "none", 80.0),
    ("w8a8", "onnx"): Cell(
        "program", "fp32", PT2E, 25.0, "edgegen.quantize.pt2e:quantize", (PT2E_EXTRA,), calibrated=True
    ),
    ("mixed", "onnx"): Cell(
        "program", "fp32", PT2E, 25.0, "edgegen.quantize.pt2e:quantize", (PT2E_EXTRA,), calibrated=True
    ),
    ("w8", "onnx"): Cell("program", "fp32", PT2E, 35.0, "edgegen.quantize.pt2e:quantize", (PT2E_EXTRA,)),
    ("fp16", "onnx"): Cell(
        "file", "fp32", "onnxruntime.transformers.float16, float32 in and out", 50.0, "edgegen.quantize.onnx:to_fp16"
    ),
    ("fp32", "executorch"): Cell("float", "fp32", "none", 80.0),
    ("w8a8", "executorch"): Cell("program", "fp32", PT2E, 25.0, "edgegen.quantize.pt2e:quantize", calibrated=True),
    ("mixed", "executorch"): Cell("program", "fp32", PT2E, 25.0, "edgegen.quantize.pt2e:quantize", calibrated=True),
    ("fp16", "coreml"): Cell("float", "fp16", "none", 50.0),
    ("fp32", "coreml"): Cell("float", "fp32", "none", 80.0),
    ("w8a8", "coreml"): Cell(
        "program", "fp16", PT2E, 25.0, "edgegen.quantize.pt2e:quantize", (PT2E_EXTRA,), calibrated=True
    ),
    ("mixed", "coreml"): Cell(
        "program", "fp16", PT2E, 25.0, "edgegen.quantize.pt2e:quantize", (PT2E_EXTRA,), calibrated=True
    ),
    ("w8", "coreml"): Cell(
        "file", "fp16", "coremltools.optimize linear int8 weights", 35.0, "edgegen.quantize.coreml:quantize_w8"
    ),
    ("w6", "coreml"): Cell(
        "file", "fp16", "coremltools.optimize palettes of 64, k-means", 30.0, "edgegen.quantize.coreml:palettize_w6"
    ),
    ("w4", "coreml"): Cell(
        "file",
        "fp16",
        "coremltools.optimize palettes of 16, k-means",
        15.0,
        "edgegen.quantize.coreml:palettize_w4",
        caution=PALETTE_4,
    ),
    ("w4-block", "coreml"): Cell(
        "file",
        "fp16",
        "coremltools.optimize linear int4 weights in blocks of 32",
        20.0,
        "edgegen.quantize.coreml:quantize_w4_block",
        feature="weights of 4 bits in blocks",
    ),
}


def cell(scheme: str, backend: str) -> Cell:
    """The cell of MATRIX. Raises UsageError that lists the full cells and names the nearest for an empty one."""
    if (scheme, backend) in MATRIX:
        return MATRIX[scheme, backend]
    full = [f"{other_backend} {other}" for other, other_backend in sorted(MATRIX, key=lambda key: key[::-1])]
    # A known backend is what the user meant; only then may the scheme be guessed across backends.
    same = [name for name in full if name.startswith(f"{backend} ")]
    near = difflib.get_close_matches(f"{backend} {scheme}", same or full, n=1, cutoff=0.0)
    raise UsageError(
        f"no quantization scheme '{scheme}' for backend '{backend}'; there are: {', '.join(full)}. "
        f"Did you mean '{near[0]}'?"
    )
