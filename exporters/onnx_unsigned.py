"""int8 activations of an ONNX model -> uint8 ones, 128 higher: s (q - z) = s ((q + 128) - (z + 128)).

PyTorch's quantizer gives int8; weights stay so. onnxruntime 1.32 turns some of a file's roundings to uint8 when it
opens it on x86, and then runs a convolution whose input and output differ in float: of SlimFlow's 74 convolutions 34.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from edgegen.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto

SHIFT = 128
# These move numbers and look at none.
MOVES = ("Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def unsigned(model: "ModelProto") -> None:
    """Change every rounded activation of `model`, in place.

    Raises ExportError where one goes into an operator that would look at the numbers themselves.
    """
    from onnx import TensorProto
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    changed: set[str] = set()

    def shift(node: Any) -> None:
        name = f"{node.input[2]}_unsigned"
        if name not in constants:
            zero = to_array(constants[node.input[2]]).astype(np.int16) + SHIFT
            constants[name] = from_array(zero.astype(np.uint8), name)
            graph.initializer.append(constants[name])
        node.input[2] = name

    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            if constants[node.input[2]].data_type == TensorProto.INT8:
                shift(node)
                changed.update(node.output)
        elif node.op_type == "DequantizeLinear":
            if node.input[0] in changed:
                shift(node)
        elif changed.intersection(node.input):
            if node.op_type not in MOVES:
                raise ExportError(f"the operator {node.op_type} takes 8-bit activations: no form of it is known here")
            changed.update(node.output)
    for value in graph.value_info:
        if value.name in changed:
            value.type.tensor_type.elem_type = TensorProto.UINT8
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
