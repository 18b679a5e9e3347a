"""Core ML w8: coremltools' linear int8 weights, one scale per output channel, in the saved package."""

from pathlib import Path
from typing import Any

import numpy as np

from edgegen import mlpackage
from edgegen.errors import ExportError
from edgegen.quantize.calibrate import Batches

# Weights of at most this many elements stay fp16: a compressed one adds some 360 bytes to the program and pads its
# scales to 64, about what 8 bits save on 400 elements. Measured on an 8x8 EdgeUNet of widths 32 and 64, thresholds 0,
# 256, 1024 and 2048 give 345648, 344070, 343995 and 347141 bytes; the first and the last convolution, which stay fp16
# at 1024, are worth 1 dB.
SMALLEST = 1024


def quantize_w8(source: Path, target: Path, calibration: Batches) -> None:
    """Read the float package `source`, write `target` with int8 weights (symmetric, a scale per output channel).

    Kernels, matrices and the class table of more than SMALLEST elements are stored in 8 bits and decompressed by Core
    ML; biases, norms and activations stay fp16. `calibration` is not used: weights need none. Raises ExportError where
    `source` cannot be read or quantized.
    """
    vendor = mlpackage.coremltools("quantizing a Core ML package")
    mlpackage.read(source)
    try:
        # A channel of zeros has scale 0 and divides 0 by 0; whatever integer comes of it, times 0 it is the 0 it was.
        with mlpackage.silent(), np.errstate(invalid="ignore"):
            _restart_names()
            model = vendor.models.MLModel(str(source), skip_model_load=True)
            settings = vendor.optimize.coreml.OpLinearQuantizerConfig(
                mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=SMALLEST
            )
            quantized = vendor.optimize.coreml.linear_quantize_weights(
                model, vendor.optimize.coreml.OptimizationConfig(global_config=settings)
            )
            spec: Any = quantized.get_spec()
    except Exception as e:
        raise ExportError(f"coremltools could not quantize the program: {e}") from e
    mlpackage.write(spec, Path(quantized.weights_dir), target)


def _restart_names() -> None:
    """coremltools numbers the values it adds per process; a file must not depend on what was made before it."""
    from coremltools.converters.mil.mil import Builder

    Builder.name_count.clear()
