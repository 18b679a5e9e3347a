"""`inspect` for ONNX: the graph from its protobuf, what onnxruntime makes of it, and what phones' providers take."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgegen.errors import EdgegenError, ExportError
from edgegen.exporters.onnx.backend import FATAL
from edgegen.exporters.onnx.metadata import NAMESPACE
from edgegen.formats.signature_values import signature_in
from edgegen.inspection.onnx_macs import count_macs, shape_of
from edgegen.inspection.ort import batch_of_one, to_onnx
from edgegen.inspection.record import Inspection, Method, Partition, Value, Weight, bytes_by_kind, common_hints
from edgegen.support import isolation
from edgegen.support.bounded_files import LARGEST_PROTOBUF, read_bytes
from edgegen.support.extras import require, version_of
from edgegen.support.memory import memory_limit_of
from edgegen.support.scratch import temporary_folder

SESSION_LIMIT = 2**30  # above this the file is not loaded into onnxruntime only to count nodes
BIG = 1024  # elements of an initializer that can be no shape


def inspect(path: Path) -> Inspection:
    """Raises ExportError where the file, or a file it points to, cannot be read."""
    require("onnx", purpose="reading an ONNX file")
    import onnx

    content = read_bytes(path, largest=LARGEST_PROTOBUF)
    try:
        ort = path.suffix == ".ort"
        model = to_onnx(content) if ort else onnx.ModelProto.FromString(content)
        if not (model.ir_version and model.opset_import and model.graph.node):
            raise ValueError("no ONNX graph in it")
        return _record(model, path, len(content), ort=ort)
    except EdgegenError:
        raise
    except Exception as e:
        raise ExportError(f"cannot read {path.name} ({len(content)} bytes): {e}; is it cut short?") from e


def _record(model: Any, path: Path, size: int, *, ort: bool) -> Inspection:
    """A file in ORT format holds all shapes, and is optimised already."""
    weights, beside = _weights(model, path)
    stored = sum(weight.nbytes for weight in weights)
    shaped = batch_of_one(model) if ort else _with_shapes(model, path.parent)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    partitions, notes = ((), ()) if ort else _optimised(path, size + beside)
    method = _method(model, shaped, partitions)
    return Inspection(
        file=path.name,
        kind="ORT format" if ort else "ONNX",
        nbytes=size + beside,
        methods=(method,),
        weights=weights,
        bytes_by_kind=bytes_by_kind(size + beside, weights, program=size + beside - stored),
        metadata=metadata,
        signature=signature_in(metadata.get(f"{NAMESPACE}signature")),
        needs=_needs(model),
        notes=notes if ort else (*notes, *_phones(shaped)),
        hints=tuple(_hints(model, method, weights)),
    )


def _method(model: Any, shaped: Any, partitions: tuple[Partition, ...]) -> Method:
    graph = model.graph
    stored = {initializer.name for initializer in graph.initializer}
    return Method(
        name=graph.name or "main",
        inputs=tuple(_value(entry) for entry in graph.input if entry.name not in stored),
        outputs=tuple(_value(entry) for entry in graph.output),
        operations=_operations(model),
        macs=count_macs(shaped.graph, stored),
        partitions=partitions,
    )


def _value(entry: Any) -> Value:
    import onnx

    tensor = entry.type.tensor_type
    dtype = (
        onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        if tensor.elem_type
        else entry.type.WhichOneof("value")
    )
    return Value(entry.name, str(dtype), shape_of(entry))


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of branches and loop bodies too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(body)


def _operations(model: Any) -> dict[str, int]:
    count = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in _nodes(model.graph))
    return dict(count.most_common())


def _weights(model: Any, path: Path) -> tuple[tuple[Weight, ...], int]:
    """All stored tensors, and the bytes of the files beside `path` that hold some of them."""
    import onnx

    weights, files = [], {}
    for tensor in model.graph.initializer:
        where = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            files[where["location"]] = _external(path, where)
        inside = len(tensor.raw_data) if tensor.HasField("raw_data") else tensor.ByteSize()
        dtype = (
            onnx.TensorProto.DataType.Name(tensor.data_type).lower().replace("float", "float32", tensor.data_type == 1)
        )
        nbytes = int(where["length"]) if "length" in where else inside
        weights.append(Weight(tensor.name, dtype, tuple(tensor.dims), nbytes))
    return tuple(weights), sum(files.values())


def _external(path: Path, where: Mapping[str, str]) -> int:
    """The size of a file with weights. Raises ExportError where it is missing or too short."""
    name = where["location"]
    file = path.parent / name
    if not file.is_file():
        raise ExportError(f"cannot read {path.name}: its weights are in '{name}', which is not beside it")
    size = file.stat().st_size
    if int(where.get("offset", 0)) + int(where.get("length", 0)) > size:
        raise ExportError(f"cannot read {path.name}: '{name}' is cut short ({size} bytes); copy it again")
    return size


def _with_shapes(model: Any, folder: Path) -> Any:
    """The graph with the shapes of all values: a symbolic first axis is 1, big weights are inputs (no second copy)."""
    import onnx

    small = onnx.ModelProto(ir_version=model.ir_version)
    small.opset_import.extend(model.opset_import)
    graph = small.graph
    graph.name = model.graph.name
    for part in ("node", "input", "output"):
        getattr(graph, part).extend(getattr(model.graph, part))
    inputs = {entry.name for entry in graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= BIG:
            graph.initializer.append(tensor)
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                onnx.external_data_helper.load_external_data_for_tensor(graph.initializer[-1], str(folder))
        elif tensor.name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for entry in graph.input:
        dims = entry.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    for entry in graph.output:
        entry.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(small, data_prop=True)
    except onnx.shape_inference.InferenceError:  # an operator of another domain; what it leaves open is "uncounted"
        return small


def _optimised(path: Path, nbytes: int) -> tuple[tuple[Partition, ...], tuple[str, ...]]:
    """What onnxruntime's CPU provider runs after its optimisations, and a note where that was not tried."""
    if nbytes > SESSION_LIMIT:
        return (), (f"onnxruntime's optimised graph: not checked ({nbytes / 1e9:.1f} GB)",)
    runtime = f"onnxruntime {version_of('onnxruntime')}"
    try:
        # In a child: a damaged file may end the process that opens it, and constants may take any amount of memory.
        operations = isolation.call(
            "edgegen.inspection.onnx:optimised_operations",
            {"path": str(path)},
            memory_limit=memory_limit_of(path),
        ).value
    except ExportError as e:  # what onnxruntime refuses is worth a note: the rest was read
        return (), (f"{runtime} cannot open it: {str(e).replace(f'{path.parent}/', '')}",)
    note = f"operations after optimisation: {runtime} on this machine's CPU"
    return (Partition("CPUExecutionProvider", operations),), (note,)


def optimised_operations(*, path: str) -> dict[str, int]:
    """The operations of a file after onnxruntime's optimisations. For `isolation.call`. Raises ExportError."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = 1
    with temporary_folder() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(optimised)
        try:
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], enable_fallback=False)
            return _operations(onnx.load(str(optimised), load_external_data=False))
        except Exception as e:
            raise ExportError(str(e)) from e


def _phones(shaped: Any) -> list[str]:
    """A line for each of onnxruntime's phone providers, from the operator lists that it ships."""
    try:
        from onnxruntime.tools.mobile_helpers import usability_checker as checker
    except ImportError as e:
        return [f"NNAPI and Core ML providers: not checked ({e})"]
    logging.getLogger(checker.__name__).setLevel(logging.ERROR)
    lists = {
        "NNAPI": checker.check_nnapi_partitions,
        "Core ML": lambda m, fixed: checker.check_coreml_partitions(m, fixed, "coreml_supported_mlprogram_ops.md"),
    }
    lines = []
    for name, check in lists.items():
        support = check(shaped, False)
        refused = f"; not: {', '.join(sorted(support.unsupported_ops))}" if support.unsupported_ops else ""
        lines.append(
            f"onnxruntime's {name} provider, by its list of operators: {support.num_supported_nodes} of "
            f"{support.num_nodes} nodes, partitions: {support.num_partitions}{refused}; not tried on a device"
        )
    return lines


def _needs(model: Any) -> tuple[str, ...]:
    sets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    contrib = sorted({node.domain for node in _nodes(model.graph)} - {"", "ai.onnx"})
    needs = [f"operator sets: {sets}", f"ONNX IR version {model.ir_version}"]
    return (*needs, f"operators outside the ONNX standard: {', '.join(contrib)}") if contrib else tuple(needs)


def _hints(model: Any, method: Method, weights: tuple[Weight, ...]) -> Iterator[str]:
    yield from common_hints([method], weights)
    symbolic = sorted({axis for value in method.inputs for axis in value.shape if isinstance(axis, str)})
    if symbolic:
        yield f"axes without a fixed size ({', '.join(symbolic)}): NNAPI, QNN and Core ML providers want fixed shapes"
    count = method.operations.get("Einsum")
    if count:
        yield f"rewrite einsum: onnxruntime does not quantize its {count} Einsum, and MatMul is faster"
    if any(entry.metadata_props or entry.doc_string for entry in [*model.graph.node, model.graph]):
        yield "its nodes carry notes of the exporter (source paths of the machine that built it): strip metadata_props"
