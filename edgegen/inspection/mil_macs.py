"""Multiplications of a block of an ML Program, from the types that the program declares."""

from collections.abc import Mapping
from typing import Any

from edgegen.inspection.record import Macs, Shape, Tally, product

CONVOLUTIONS = ("conv", "conv_quantized")
OPAQUE = ("lstm", "gru", "rnn", "while_loop", "cond")  # they multiply, but repeat a body or a step


def count_macs(block: Any, inputs: Mapping[str, Shape]) -> Macs:
    """`inputs` are the shapes of the function's inputs."""
    shapes: dict[str, Shape] = dict(inputs)
    values: dict[str, Any] = {}
    constant: set[str] = set()
    tally = Tally()
    for op in block.operations:
        input_names = {name: [a.name for a in parameter.arguments if a.name] for name, parameter in op.inputs.items()}
        shapes.update((out.name, shape_of(out.type)) for out in op.outputs)
        if op.type.startswith("const") or all(name in constant for names in input_names.values() for name in names):
            constant.update(out.name for out in op.outputs)
            if op.type == "const":
                values[op.outputs[0].name] = op.attributes["val"].immediateValue.tensor
            continue
        arguments = {name: names[0] for name, names in input_names.items() if len(names) == 1}
        _count(op, arguments, shapes, values, constant, tally)
    return tally.macs()


def shape_of(value_type: Any) -> Shape:
    """The axes of a MIL value type; "?" where the program leaves one open."""
    dims = value_type.tensorType.dimensions
    return tuple(int(dim.constant.size) if dim.HasField("constant") else "?" for dim in dims)


def _count(
    op: Any,
    arguments: Mapping[str, str],
    shapes: Mapping[str, Shape],
    values: Mapping[str, Any],
    constant: set[str],
    tally: Tally,
) -> None:
    def axes(name: str) -> Shape | None:
        return shapes.get(arguments.get(name, ""))

    out, x, weight = shapes[op.outputs[0].name], axes("x"), axes("weight")
    computed = not {arguments.get(name) for name in ("x", "y", "weight")} & constant
    if op.type in CONVOLUTIONS:  # each output value: (input channels / groups) x kernel
        tally.add(op.type, product(out, weight[1:] if weight else None), computed=computed)
    elif op.type == "conv_transpose":  # each input value: (output channels / groups) x kernel
        tally.add(op.type, product(x, weight[1:] if weight else None), computed=computed)
    elif op.type == "linear":
        tally.add(op.type, product(out, x[-1:] if x else None), computed=computed)
    elif op.type == "matmul":
        transposed = arguments.get("transpose_x", "")
        flipped = transposed in values and any(values[transposed].bools.values)
        inner = None if not x else [x[-2] if flipped and len(x) > 1 else x[-1]]
        tally.add(op.type, product(out, inner), computed=computed)
    elif op.type == "scaled_dot_product_attention":
        query, key = axes("query"), axes("key")
        macs = product(query, key[-2:-1] if key else None)
        mixed = product(out, key[-2:-1] if key else None)
        tally.add(op.type, None if macs is None or mixed is None else macs + mixed, computed=True)
    elif op.type == "einsum" or op.type in OPAQUE:
        tally.add(op.type, _einsum(op, shapes, values) if op.type == "einsum" else None, computed=computed)


def _einsum(op: Any, shapes: Mapping[str, Shape], values: Mapping[str, Any]) -> int | None:
    """A product over all different letters of an equation of two factors."""
    names = [argument.name for argument in op.inputs["values"].arguments]
    equation = op.inputs["equation"].arguments[0]
    stored = values[equation.name] if equation.name else equation.value.immediateValue.tensor
    terms = str(stored.strings.values[0]).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int | str] = {}
    for term, name in zip(terms, names, strict=True):
        sizes.update(zip(term, shapes[name], strict=True))
    return product(sizes.values())
