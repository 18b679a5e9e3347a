"""What the compiler of Snapdragon's NPU refuses or computes wrongly, written otherwise, in a file of batch 1.

Each form is kept by what it puts onto the NPU, or mends, in examples/bench_qnn.md.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

MOST_AXES = 5  # of a tensor on the HTP
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
FIRST_KERNEL, LENGTHS = 5, 8  # of `longer_convolutions`


def plain_splits(model: "ModelProto") -> None:
    """SplitToSequence and the SequenceAt of its parts -> Split, in place.

    torch.onnx writes them where its optimiser may not run (see `_adds_tiny` of the backend).
    """
    from onnx import helper
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    sizes = _sizes(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = _users(graph)
    nodes = list(graph.node)
    for node in graph.node:
        if node.op_type != "SplitToSequence" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        parts = users[node.output[0]]
        if any(part.op_type != "SequenceAt" or part.input[1] not in constants for part in parts):
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        lengths = to_array(constants[node.input[1]])
        if lengths.ndim == 0:  # of each part, but for the last
            whole = sizes.get(node.input[0], [])
            if not whole:
                continue
            lengths = np.diff(np.r_[np.arange(0, whole[axis], lengths), whole[axis]])
        names = [f"{node.output[0]}_{number}" for number in range(len(lengths))]
        for part in parts:
            names[int(to_array(constants[part.input[1]]))] = part.output[0]
            nodes.remove(part)
        stored = from_array(lengths.astype(np.int64), f"{node.output[0]}_lengths")
        graph.initializer.append(stored)
        split = helper.make_node("Split", [node.input[0], stored.name], names, name=node.name, axis=axis)
        nodes[nodes.index(node)] = split
    if len(nodes) < len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)


def filled_pads(model: "ModelProto") -> None:
    """Pad with another number than 0 -> Concat with constants, in place.

    The simulator pads floats with something else then: linear attention's row of ones 22 dB in place of 80
    (onnxruntime-qnn 2.7.0).
    """
    from onnx import helper
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    sizes = _sizes(model)
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
    sizes = _sizes(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = _users(graph)

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


def plain_mish(model: "ModelProto") -> None:
    """Mish -> x tanh(softplus(x)), in place: the provider divides the graph at each, and then writes no context."""
    from onnx import helper

    graph = model.graph
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "Mish":
            nodes.append(node)
            continue
        (x,), (y,) = node.input, node.output
        nodes += [
            helper.make_node("Softplus", [x], [f"{y}_softplus"], f"{node.name}_softplus"),
            helper.make_node("Tanh", [f"{y}_softplus"], [f"{y}_tanh"], f"{node.name}_tanh"),
            helper.make_node("Mul", [x, f"{y}_tanh"], [y], f"{node.name}_mul"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def open_gelus(model: "ModelProto") -> None:
    """A Max that changes no number stands between a GELU by Erf and the rounding of its result, in place.

    The provider makes one operator of all GELU's nodes where the result is a float; rounded at once, it leaves Erf to
    the CPU.
    """
    from onnx import helper
    from onnx.numpy_helper import from_array

    graph = model.graph
    users = _users(graph)
    ends = set()
    for node in graph.node:
        if node.op_type != "Erf":
            continue
        last = node
        for kind in ("Add", "Mul", "Mul"):
            after = users[last.output[0]]
            if [user.op_type for user in after] != [kind]:
                break
            last = after[0]
        else:
            if any(user.op_type == ROUNDING[0] for user in users[last.output[0]]):
                ends.add(last.output[0])
    if not ends:
        return
    graph.initializer.append(from_array(np.array(np.finfo(np.float16).min, np.float32), "least_float16"))
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.output[0] in ends:
            (name,) = node.output
            node.output[0] = f"{name}_open"
            nodes.append(helper.make_node("Max", [f"{name}_open", "least_float16"], [name], f"{node.name}_open"))
    del graph.node[:]
    graph.node.extend(nodes)


def longer_convolutions(model: "ModelProto") -> None:
    """Float convolutions along one axis, with a kernel of 5 or more, give no length of a multiple of 8, in place.

    One more value is computed and cut off: else the simulator gives wrong numbers where the length is short for the
    kernel, as 20 dB in place of 84 for a kernel of 5 and 8 values (onnxruntime-qnn 2.7.0, every chip; examples/
    bench_qnn.py measures it).
    """
    from onnx import helper
    from onnx.numpy_helper import from_array

    graph = model.graph
    sizes = _sizes(model)
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


def _sizes(model: "ModelProto") -> dict[str, list[int]]:
    """Of each tensor, where they are known."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }


def _users(graph: "GraphProto") -> "defaultdict[str, list[NodeProto]]":
    users: defaultdict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    return users


NPU_FORMS = {
    "plain_splits": plain_splits,
    "filled_pads": filled_pads,
    "few_axes": few_axes,
    "plain_mish": plain_mish,
    "open_gelus": open_gelus,
    "longer_convolutions": longer_convolutions,
}
