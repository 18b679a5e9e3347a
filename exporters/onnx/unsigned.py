"""int8 activations of an ONNX model -> uint8 ones, 128 higher: s (q - z) = s ((q + 128) - (z + 128)); int16 likewise.

PyTorch's quantizer gives int8; weights keep it. onnxruntime 1.32 turns some of a file's roundings to uint8 when it
opens it on x86, and then runs a convolution whose input and output differ in float: of SlimFlow's 74 convolutions 34.
Qualcomm's compiler takes 16-bit numbers with a zero point only where they are unsigned.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

# Operators that move numbers without computing with them.
MOVES = ("Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def unsigned(model: "ModelProto") -> None:
    """Change every rounded activation of `model`, in place.

    A model of other quantizers stays as it is where a zero point is computed, or an operator computes with the numbers.
    """
    from onnx import TensorProto
    from onnx.helper import tensor_dtype_to_np_dtype
    from onnx.numpy_helper import from_array, to_array

    unsigned_of = {
        TensorProto.INT8: (TensorProto.UINT8, 128),
        TensorProto.INT16: (TensorProto.UINT16, 32768),
    }
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    changed: set[str] = set()
    nodes = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            if zero is None:
                return
            if zero.data_type not in unsigned_of:
                continue
        elif not changed.intersection(node.input):
            continue
        elif node.op_type not in (*MOVES, "DequantizeLinear"):
            return
        if node.op_type != "DequantizeLinear":
            changed.update(node.output)
        if node.op_type not in MOVES:
            nodes.append(node)
    for node in nodes:
        name = f"{node.input[2]}_unsigned"
        if name not in constants:
            zero = constants[node.input[2]]
            data_type, shift = unsigned_of[zero.data_type]
            zero_point = to_array(zero).astype(np.int32) + shift
            constants[name] = from_array(zero_point.astype(tensor_dtype_to_np_dtype(data_type)), name)
            graph.initializer.append(constants[name])
        node.input[2] = name
    for value in graph.value_info:
        if value.name in changed:
            signed = value.type.tensor_type.elem_type
            value.type.tensor_type.elem_type = unsigned_of.get(signed, (signed, 0))[0]
    input_names = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in input_names]:
        graph.initializer.remove(tensor)
