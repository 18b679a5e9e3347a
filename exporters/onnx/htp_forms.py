"""What the compiler of Snapdragon's NPU refuses or computes wrongly, written otherwise, in a file of batch 1.

Each form is kept by what it puts onto the NPU, or mends, in examples/bench_qnn.md.
"""

from typing import TYPE_CHECKING

import numpy as np

from edgegen.exporters.onnx.graph_facts import sizes_of, users_of
from edgegen.exporters.onnx.htp_operators import open_gelus, plain_group_norms, plain_mish, plain_splits

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

MOST_AXES = 5  # of a tensor on the HTP
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
FIRST_KERNEL, LENGTHS = 5, 8  # of `longer_convolutions`


def filled_pads(model: "ModelProto") -> None:
    """Pad with another number than 0 -> Concat with constants, in place.

    The simulator pads floats with something else then: linear attention's row of ones 22 dB in place of 80
    (onnxruntime-qnn 2.7.0).
    """
    from onnx import helper
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    sizes = sizes_of(model)
    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Pad" or len(node.input) < 3 or node.input[2] not in constants:
            continue
        mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant")
        value, pads, shape = constants[node.input[2]], constants.get(node.input[1]), list(sizes.get(node.input[0], ()))
        if mode != b"constant" or not value or pads is None or len(pads) != 2 * len(shape) or (pads < 0).any():
            continue
        nodes.pop()
        current = node.input[0]
        padded = [axis for axis in range(len(shape)) if pads[axis] or pads[axis + len(shape)]]
        for axis in padded:
            parts = [current]
            for is_after, count in ((False, pads[axis]), (True, pads[axis + len(shape)])):
                if count:
                    name = f"{node.output[0]}_{axis}_{'after' if is_after else 'before'}"
                    block = np.full([*shape[:axis], count, *shape[axis + 1 :]], value, value.dtype)
                    graph.initializer.append(from_array(block, name))
                    parts.insert(len(parts) if is_after else 0, name)
            shape[axis] += int(pads[axis] + pads[axis + len(shape)])
            current = node.output[0] if axis == padded[-1] else f"{node.output[0]}_{axis}"
            nodes.append(helper.make_node("Concat", parts, [current], f"{node.name}_{axis}", axis=axis))
    del graph.node[:]
    graph.node.extend(nodes)


def few_axes(model: "ModelProto") -> None:
    """Tensors of more than MOST_AXES axes lose their first, which is the batch of 1, in place.

    They lie between two Reshape, with permutations, and roundings of the whole tensor: how images become patches.
    """
    from onnx import helper
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    sizes = sizes_of(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = users_of(graph)

    def region(start: "NodeProto") -> "list[NodeProto] | None":
        """The nodes up to the Reshape that ends it; None where something else computes with that many axes."""
        nodes, tensors = [], [start.output[0]]
        while tensors:
            for node in users[tensors.pop()]:
                order = permutation(node)
                if node.op_type == "Reshape":
                    if len(sizes.get(node.output[0], ())) <= MOST_AXES:
                        continue
                    return None
                is_whole = node.op_type in ROUNDING and not to_array(constants[node.input[1]]).ndim
                if is_whole or (order and order[0] == 0):
                    nodes.append(node)
                    tensors.append(node.output[0])
                else:
                    return None
        return nodes

    for node in list(graph.node):
        shape = sizes.get(node.output[0], []) if node.op_type == "Reshape" else []
        if len(shape) <= MOST_AXES or shape[0] != 1 or node.input[1] not in constants:
            continue
        nodes = region(node)
        if nodes is None:
            continue
        fewer = from_array(np.array(shape[1:], np.int64), f"{node.output[0]}_fewer_axes")
        graph.initializer.append(fewer)
        node.input[1] = fewer.name
        for inner in nodes:
            if order := permutation(inner):
                moved = helper.make_node(
                    "Transpose",
                    list(inner.input),
                    list(inner.output),
                    inner.name,
                    perm=[axis - 1 for axis in order[1:]],
                )
                inner.CopyFrom(moved)
        changed = {node.output[0], *(name for inner in nodes for name in inner.output)}
        for value in [value for value in graph.value_info if value.name in changed]:
            graph.value_info.remove(value)


def permutation(node: "NodeProto") -> list[int]:
    """The order of the axes in a Transpose, or in an Einsum of one operand that does no more; [] of other nodes."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Transpose":
        return list(attributes["perm"].ints)
    if node.op_type == "Einsum" and len(node.input) == 1:
        before, _, after = attributes["equation"].s.decode().replace(" ", "").partition("->")
        if sorted(before) == sorted(after) and len(set(before)) == len(before):
            return [before.index(letter) for letter in after]
    return []


def longer_convolutions(model: "ModelProto") -> None:
    """Float convolutions along one axis, with a kernel of 5 or more, give no length of a multiple of 8, in place.

    One more value is computed and cut off: else the simulator gives wrong numbers where the length is short for the
    kernel, as 20 dB in place of 84 for a kernel of 5 and 8 values (onnxruntime-qnn 2.7.0, every chip; examples/
    bench_qnn.py measures it).
    """
    from onnx import helper
    from onnx.numpy_helper import from_array

    graph = model.graph
    sizes = sizes_of(model)
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        shape = sizes.get(node.output[0], [])
        kernel = weights.get(node.input[1], []) if node.op_type == "Conv" else []
        attributes = {attribute.name: attribute.ints for attribute in node.attribute}
        is_along_one = len(shape) == 3 or (len(shape) == 4 and shape[2] == 1)
        if not is_along_one or not kernel or kernel[-1] < FIRST_KERNEL or shape[-1] % LENGTHS:
            continue
        if any(step != 1 for step in attributes.get("strides", ())) or "pads" not in attributes:
            continue
        attributes["pads"][-1] += 1
        (name,) = node.output
        node.output[0] = f"{name}_longer"
        bounds = {"start": 0, "end": shape[-1], "axis": len(shape) - 1}
        names = [f"{name}_{key}" for key in bounds]
        graph.initializer.extend(
            from_array(np.array([value], np.int64), key) for key, value in zip(names, bounds.values(), strict=True)
        )
        nodes.append(helper.make_node("Slice", [f"{name}_longer", *names], [name], f"{node.name}_slice"))
    del graph.node[:]
    graph.node.extend(nodes)


NPU_FORMS = {
    "plain_splits": plain_splits,
    "filled_pads": filled_pads,
    "few_axes": few_axes,
    "plain_group_norms": plain_group_norms,
    "plain_mish": plain_mish,
    "open_gelus": open_gelus,
    "longer_convolutions": longer_convolutions,
}
