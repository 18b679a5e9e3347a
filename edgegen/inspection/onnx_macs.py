"""Multiplications of an ONNX graph, from the shapes that shape inference gave."""

from collections.abc import Collection, Mapping
from typing import Any

from edgegen.inspection.record import Macs, Shape, Tally, product

CONVOLUTIONS = {"Conv", "ConvInteger", "FusedConv", "QLinearConv"}
PRODUCTS = {"MatMul", "MatMulInteger", "FusedMatMul", "QLinearMatMul", "Gemm", "QGemm", "FusedGemm"}
# They multiply, but their shapes say too little here, or they repeat a body.
OPAQUE = {"Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention", "MatMulNBits", "DeformConv",
          "LSTM", "GRU", "RNN", "Loop", "Scan", "If"}  # fmt: skip
# Where the second factor stands among the inputs of the quantized forms; 1 elsewhere.
SECOND = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}


def count_macs(graph: Any, stored: Collection[str]) -> Macs:
    """`graph` with the shapes of its values; `stored` are the names of its weights."""
    shapes = _shapes(graph)
    constant = set(stored)
    tally = Tally()
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if all(name in constant for name in inputs):  # also Constant, which has none, and a dequantized weight
            constant.update(node.output)
            continue
        kind = node.op_type
        first, second = shapes.get(node.input[0]), None
        if kind in CONVOLUTIONS | PRODUCTS | {"ConvTranspose"}:
            name = node.input[SECOND.get(kind, 1)]
            second = shapes.get(name)
            computed = name not in constant and node.input[0] not in constant
            tally.add(kind, _macs(node, first, second, shapes.get(node.output[0])), computed=computed)
        elif kind == "Einsum":
            tally.add(kind, _einsum(node, shapes), computed=not constant.intersection(node.input))
        elif kind in OPAQUE:
            tally.add(kind, None, computed=False)
    return tally.macs()


def shape_of(entry: Any) -> Shape:
    """The axes of a ValueInfoProto: numbers, names of symbolic ones, "?"."""
    dims = entry.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


def _shapes(graph: Any) -> dict[str, Shape]:
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: shape_of(value) for value in values if value.type.tensor_type.HasField("shape")}
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    return shapes


def _macs(node: Any, first: Shape | None, second: Shape | None, out: Shape | None) -> int | None:
    if node.op_type in CONVOLUTIONS:  # each output value: (input channels / groups) x kernel
        return product(out, None if second is None else second[1:])
    if node.op_type == "ConvTranspose":  # each input value: (output channels / groups) x kernel
        return product(first, None if second is None else second[1:])
    if not first:
        return None
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return product(out, [first[-2] if turned else first[-1]])


def _einsum(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    """A product over all different letters; an equation of one or three factors, or with an ellipsis, is unknown."""
    equation = next(attribute.s.decode() for attribute in node.attribute if attribute.name == "equation")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) != 2 or "." in equation:
        return None
    sizes: dict[str, int | str] = {}
    for term, name in zip(terms, node.input, strict=True):
        if len(shapes.get(name, ())) != len(term):
            return None
        sizes.update(zip(term, shapes[name], strict=True))
    return product(sizes.values())
