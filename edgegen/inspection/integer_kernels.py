"""Counts the layers of a quantized file that a runtime really multiplies in 8 bits.

A runtime without an integer kernel for a pattern converts its numbers to float; the file is then small, and not fast.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen.inspection.pte import place_of, read_pte
from edgegen.support.bounded_files import mapped
from edgegen.support.scratch import temporary_folder

if TYPE_CHECKING:
    from edgegen.exporters.onnx.htp import Assignment

# What onnxruntime makes of a layer: with whole numbers, or in float. Products of two activations are no layers.
INTEGER = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"}
FLOAT = {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
LEAST = 1e-3  # of a file's multiplications, that a layer must have to count
XNNPACK_LAYERS = ("XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d", "XNNFullyConnected")


def arithmetic(backend: str, path: Path) -> str:
    """In words, read from what onnxruntime makes of the file, or XNNPACK's part of it; "" of other runtimes."""
    if backend == "onnx" and (assignment := _on_npu(path)):
        return assignment.sentence()
    if backend == "onnx":
        return _sentence(_onnx(path))
    if backend == "executorch":
        return _sentence(_xnnpack(path))
    return ""


def _sentence(whole: Iterable[bool]) -> str:
    layers = list(whole)
    if not layers:
        return ""
    if all(layers):
        return f"all {len(layers)} layers multiply in 8 bits"
    if not any(layers):
        return f"runs float: none of {len(layers)} layers multiplies in 8 bits"
    return f"{sum(layers)} of {len(layers)} layers multiply in 8 bits, the others float"


def _on_npu(path: Path) -> "Assignment | None":
    import onnx

    from edgegen.exporters.onnx.htp import assignment_of
    from edgegen.exporters.onnx.metadata import NAMESPACE

    fields = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    return assignment_of(fields, NAMESPACE)


def _onnx(path: Path) -> list[bool]:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hides the warning that the optimised file is for this machine alone
    with temporary_folder() as temporary:
        optimised = Path(temporary) / "optimised.onnx"
        options.optimized_model_filepath = str(optimised)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(optimised, load_external_data=False).graph
    from_weights = {tensor.name for tensor in graph.initializer}  # or turned to float from what is stored
    is_integer = []
    for node in graph.node:  # in topological order
        if all(name in from_weights for name in node.input if name):
            from_weights.update(node.output)
        if node.op_type in INTEGER:
            is_integer.append(True)
        elif node.op_type in FLOAT and any(name in from_weights for name in node.input[:2]):
            is_integer.append(False)
    return is_integer


def _xnnpack(path: Path) -> list[bool]:
    """Of `forward`. Layers of few products are left out: the convolutions that spread a GroupNorm's means."""
    pte = read_pte(mapped(path))
    (plan,) = (plan for plan in pte.plans if plan["name"] == "forward")
    graphs = [pte.graphs.get(place_of(delegate)) for delegate in plan["delegates"]]
    layers: list[tuple[int, bool]] = []
    for graph in filter(None, graphs):
        values: dict[int, Mapping[str, Any]] = {}
        for value in graph.get("xvalues", ()):
            union = value["xvalue_union"]
            tensor = union.get("tensor_value", union)
            values[tensor["id_out"]] = tensor
        for node in graph.get("xnodes", ()):
            if node["xnode_union_type"] in XNNPACK_LAYERS:
                inputs, weights, out = (
                    values[node["xnode_union"][name]] for name in ("input1_id", "filter_id", "output_id")
                )
                macs = math.prod(weights["dims"]) * math.prod(out["dims"][:-1])
                layers.append((macs, "qint8" in inputs["datatype"]))
    least = LEAST * sum(macs for macs, _ in layers)
    return [whole for macs, whole in layers if macs >= least]
