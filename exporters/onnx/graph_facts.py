"""Facts about a graph of ONNX that its passes ask for."""

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def sizes_of(model: "ModelProto") -> dict[str, list[int]]:
    """Of each tensor, where they are known."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }


def users_of(graph: "GraphProto") -> "defaultdict[str, list[NodeProto]]":
    users: defaultdict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    return users
