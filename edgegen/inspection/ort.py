"""onnxruntime's ORT format as the ONNX graph it stands for, by the flatbuffer classes in onnxruntime's own tools."""

import importlib
from collections.abc import Callable
from typing import Any

IDENTIFIER = b"ORTM"


def to_onnx(content: bytes) -> Any:
    """An onnx.ModelProto with the operations, all shapes and the stored tensors (their sizes, not their values).

    Raises ValueError for something else, and whatever the flatbuffer classes raise where it is cut short.
    """
    import onnx

    if content[4:8] != IDENTIFIER:
        raise ValueError(f"it begins with {content[4:8]!r}, not with an ORT model's {IDENTIFIER!r}")
    model = _flatbuffer("InferenceSession").GetRootAs(bytearray(content), 0).Model()
    converted = onnx.ModelProto(ir_version=model.IrVersion())
    for entry in _each(model.OpsetImport, model.OpsetImportLength()):
        converted.opset_import.add(domain=_text(entry.Domain()), version=entry.Version())
    for entry in _each(model.MetadataProps, model.MetadataPropsLength()):
        converted.metadata_props.add(key=_text(entry.Key()), value=_text(entry.Value()))
    graph = model.Graph()
    values = {_text(value.Name()): _value(value) for value in _each(graph.NodeArgs, graph.NodeArgsLength())}
    stored = [_stored(tensor, len(content)) for tensor in _each(graph.Initializers, graph.InitializersLength())]
    names = {tensor.name for tensor in stored}
    converted.graph.name = "main"
    converted.graph.node.extend(_node(node) for node in _each(graph.Nodes, graph.NodesLength()))
    converted.graph.initializer.extend(stored)
    inputs = [_text(name) for name in _each(graph.Inputs, graph.InputsLength())]
    converted.graph.input.extend(values[name] for name in inputs if name not in names)
    converted.graph.output.extend(values[_text(name)] for name in _each(graph.Outputs, graph.OutputsLength()))
    converted.graph.value_info.extend(value for value in values.values() if value.name not in names)
    return converted


def batch_of_one(model: Any) -> Any:
    """A copy where the first input's symbolic first axis is 1 everywhere."""
    copy = type(model)()
    copy.CopyFrom(model)
    dims = copy.graph.input[0].type.tensor_type.shape.dim if copy.graph.input else []
    symbol = dims[0].dim_param if dims else ""
    for value in [*copy.graph.input, *copy.graph.value_info, *copy.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if symbol and dim.dim_param == symbol:
                dim.dim_value = 1
    return copy


def _flatbuffer(name: str) -> Any:
    """A class that flatbuffers generated; the package that holds them puts itself on the path at import."""
    importlib.import_module("onnxruntime.tools.ort_format_model")
    return getattr(importlib.import_module(f"ort_flatbuffers_py.fbs.{name}"), name)


def _each(get: Callable[[int], Any], count: int) -> list[Any]:
    return [get(index) for index in range(count)]


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _value(value: Any) -> Any:
    """A ValueInfoProto; a value that is no tensor keeps its name only."""
    import onnx

    axes = _flatbuffer("DimensionValueType")
    tensor_class = _flatbuffer("TensorTypeAndShape")
    kinds = _flatbuffer("TypeInfoValue")

    info = onnx.ValueInfoProto(name=_text(value.Name()))
    about = value.Type()
    if about is None or about.ValueType() != kinds.tensor_type:
        return info
    tensor = tensor_class()
    tensor.Init(about.Value().Bytes, about.Value().Pos)
    info.type.tensor_type.elem_type = tensor.ElemType()
    if tensor.Shape() is not None:
        info.type.tensor_type.shape.SetInParent()
        for dim in _each(tensor.Shape().Dim, tensor.Shape().DimLength()):
            axis = info.type.tensor_type.shape.dim.add()
            if dim.Value() is not None and dim.Value().DimType() == axes.PARAM:
                axis.dim_param = _text(dim.Value().DimParam())
            elif dim.Value() is not None and dim.Value().DimType() == axes.VALUE:
                axis.dim_value = dim.Value().DimValue()
    return info


def _stored(tensor: Any, most: int) -> Any:
    """A TensorProto without the values; its bytes stand in `raw_data` only by their number, `most` at most."""
    import onnx

    if tensor.RawDataLength() > most:
        raise ValueError(f"a tensor of {tensor.RawDataLength()} bytes")
    proto = onnx.TensorProto(name=_text(tensor.Name()), data_type=tensor.DataType())
    proto.dims.extend(_each(tensor.Dims, tensor.DimsLength()))
    proto.raw_data = bytes(tensor.RawDataLength())
    return proto


def _node(node: Any) -> Any:
    """A NodeProto with the attributes that count: whole numbers and texts."""
    import onnx

    kinds = _flatbuffer("AttributeType")

    domain = _text(node.Domain())
    proto = onnx.NodeProto(op_type=_text(node.OpType()), domain="" if domain == "ai.onnx" else domain)
    proto.input.extend(_text(name) for name in _each(node.Inputs, node.InputsLength()))
    proto.output.extend(_text(name) for name in _each(node.Outputs, node.OutputsLength()))
    for attribute in _each(node.Attributes, node.AttributesLength()):
        name = _text(attribute.Name())
        if attribute.Type() == kinds.INT:
            proto.attribute.append(onnx.helper.make_attribute(name, attribute.I()))
        elif attribute.Type() == kinds.STRING:
            proto.attribute.append(onnx.helper.make_attribute(name, _text(attribute.S())))
    return proto
