"""Core ML w8, w6, w4 and w4-block: coremltools' compressed weights in the saved package; arithmetic stays fp16.

They are decompressed by Core ML, at load or while it runs. Kernels, matrices and the class table of more than SMALLEST
elements are compressed; biases, norms and activations stay fp16.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.errors import ExportError
from edgegen.formats import mlpackage
from edgegen.quantize.schemes import BLOCK, SMALLEST


def quantize_w8(source: Path, target: Path) -> None:
    """Read the float package `source`, write `target` with int8 weights (symmetric, a scale per output channel).

    Raises ExportError where `source` cannot be read or quantized, as the other functions do.
    """
    _compress(source, target, lambda optimize: _linear(optimize, dtype="int8", granularity="per_channel"))


def quantize_w4_block(source: Path, target: Path) -> None:
    """As `quantize_w8`, with int4 weights and a scale for every BLOCK weights along the input channels; iOS 18."""
    _compress(
        source,
        target,
        lambda optimize: _linear(optimize, dtype="int4", granularity="per_block", block_size=BLOCK),
    )


def palettize_w6(source: Path, target: Path) -> None:
    """As `quantize_w8`, with weights that are one of 64 numbers a tensor, found by k-means."""
    _compress(source, target, lambda optimize: _palette(optimize, 6))


def palettize_w4(source: Path, target: Path) -> None:
    """As `palettize_w6`, one of 16 numbers."""
    _compress(source, target, lambda optimize: _palette(optimize, 4))


def _linear(optimize: Any, **settings: Any) -> Callable[[Any], Any]:
    op_config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=SMALLEST, **settings)
    config = optimize.OptimizationConfig(global_config=op_config)
    return lambda model: optimize.linear_quantize_weights(model, config)


def _palette(optimize: Any, bits: int) -> Callable[[Any], Any]:
    op_config = optimize.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=SMALLEST)
    config = optimize.OptimizationConfig(global_config=op_config)
    return lambda model: optimize.palettize_weights(model, config)


def _compress(source: Path, target: Path, method: Callable[[Any], Callable[[Any], Any]]) -> None:
    vendor = mlpackage.coremltools("quantizing a Core ML package")
    mlpackage.read(source)
    try:
        # A channel of zeros has scale 0 and divides 0 by 0; any integer that results is 0 again when scaled.
        with mlpackage.silent(), np.errstate(invalid="ignore"):
            _restart_names()
            model = vendor.models.MLModel(str(source), skip_model_load=True)
            quantized = method(vendor.optimize.coreml)(model)
            spec: Any = quantized.get_spec()
            (block,) = spec.mlProgram.functions["main"].block_specializations.values()
            compressed = any(op.type.startswith("constexpr_") for op in block.operations)
    except Exception as e:
        raise ExportError(f"coremltools could not compress the weights: {e}") from e
    if not compressed:
        raise ExportError(
            f"nothing to compress: a weight needs more than {SMALLEST} elements, and in w4-block input channels that "
            f"{BLOCK} divides; take fp16, or w8"
        )
    mlpackage.write(spec, Path(quantized.weights_dir), target)


def _restart_names() -> None:
    """coremltools numbers the values it adds per process; a file must not depend on those made before it."""
    from coremltools.converters.mil.mil import Builder

    Builder.name_count.clear()
