"""onnxslim's passes over an ONNX graph, each of which can be left out: fusions, foldings, eliminations.

The same graph in fewer nodes. ONNX Runtime finds most of these itself whenever it opens a file; converters, NPU
compilers and the browser need not.
"""

from collections.abc import Collection
from typing import Any

TOOL = "onnxslim"
FUSIONS = "graph_fusion"  # its name for all patterns together


def names() -> tuple[str, ...]:
    """Of the passes: "onnxslim.FusionConvMul", "onnxslim.constant_folding"."""
    return tuple(f"{TOOL}.{name}" for name in (*_patterns(), *_optimizations()))


def slim(model: Any, *, left_out: Collection[str] = ()) -> Any:
    """`model` (an onnx.ModelProto) after the passes that are not in `left_out`, which may name others as well."""
    if not set(names()) - set(left_out):
        return model
    import onnxslim

    return onnxslim.slim(
        model,
        skip_fusion_patterns=[name for name in _patterns() if f"{TOOL}.{name}" in left_out],
        skip_optimizations=[name for name in _optimizations() if f"{TOOL}.{name}" in left_out],
    )


def _patterns() -> list[str]:
    from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

    return list(DEFAULT_FUSION_PATTERNS)


def _optimizations() -> list[str]:
    from onnxslim.core.optimization import OptimizationSettings

    return [name for name in OptimizationSettings.stats() if name != FUSIONS]
