"""Operators that the compiler of Snapdragon's NPU does not take, by those that it does; each a form of `NPU_FORMS`."""

from typing import TYPE_CHECKING

import numpy as np

from edgegen.exporters.onnx.graph_facts import sizes_of, users_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def plain_splits(model: "ModelProto") -> None:
    """SplitToSequence and the SequenceAt of its parts -> Split, in place.

    torch.onnx writes them where its optimiser may not run (see `_adds_tiny` of the backend).
    """
    from onnx import helper
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    sizes = sizes_of(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = users_of(graph)
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


def plain_group_norms(model: "ModelProto") -> None:
    """GroupNormalization (batch, channels, ...) -> InstanceNormalization of the groups, in place.

    onnxruntime's layout pass makes one of the provider's own of it, which the provider then refuses.
    """
    from onnx import helper
    from onnx.numpy_helper import from_array

    graph = model.graph
    sizes = sizes_of(model)
    nodes: list[NodeProto] = []
    for node in graph.node:
        shape = sizes.get(node.input[0], [])
        if node.op_type != "GroupNormalization" or len(shape) < 3:
            nodes.append(node)
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        groups, (x, scale, bias), (y,) = attributes["num_groups"], node.input, node.output
        stored = {
            "grouped": np.array([shape[0], groups, -1], np.int64),
            "ungrouped": np.array(shape, np.int64),
            "ones": np.ones(groups, np.float32),
            "zeros": np.zeros(groups, np.float32),
            "channels": np.array([shape[1], *[1] * (len(shape) - 2)], np.int64),
        }
        graph.initializer.extend(from_array(array, f"{y}_{key}") for key, array in stored.items())
        steps = [
            ("Reshape", [x, f"{y}_grouped"], f"{y}_groups"),
            ("InstanceNormalization", [f"{y}_groups", f"{y}_ones", f"{y}_zeros"], f"{y}_normal"),
            ("Reshape", [f"{y}_normal", f"{y}_ungrouped"], f"{y}_sequence"),
            ("Reshape", [scale, f"{y}_channels"], f"{y}_scale"),
            ("Mul", [f"{y}_sequence", f"{y}_scale"], f"{y}_scaled"),
            ("Reshape", [bias, f"{y}_channels"], f"{y}_bias"),
            ("Add", [f"{y}_scaled", f"{y}_bias"], y),
        ]
        nodes += [helper.make_node(kind, inputs, [out], name=f"{out}_{kind}") for kind, inputs, out in steps]
        for norm in nodes[-len(steps) :]:
            if norm.op_type == "InstanceNormalization":
                norm.attribute.append(helper.make_attribute("epsilon", attributes.get("epsilon", 1e-5)))
    del graph.node[:]
    graph.node.extend(nodes)


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
    users = users_of(graph)
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
            if any(user.op_type == "QuantizeLinear" for user in users[last.output[0]]):
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
