"""`inspect` for Core ML: the ML Program and its weight file, read without Core ML."""

import importlib.util
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegen.errors import EdgegenError
from edgegen.exporters.coreml.metadata import NAMESPACE
from edgegen.formats import mlpackage
from edgegen.formats.signature_values import signature_in
from edgegen.inspection.mil_macs import count_macs, shape_of
from edgegen.inspection.record import Inspection, Method, Value, Weight, bytes_by_kind, common_hints
from edgegen.support.bounded_files import LARGEST_PROTOBUF, read_bytes
from edgegen.support.extras import require
from edgegen.support.storage import nbytes_of

MESSAGES = "edgegen_coreml_messages"  # what coremltools.proto is called where it is loaded alone
BLOB = struct.Struct("<IIQQ")  # sentinel, type, bytes, place: how an entry of weight.bin begins (Core ML's MIL blobs)
SENTINEL = 0xDEADBEEF
# The stored part that names a compressed weight, per kind of constexpr op (both generations: iOS 16 and iOS 18).
STORED = ("quantized_data", "data", "indices", "indices_nonzero_data", "nonzero_data", "source_val", "mask")
UNDECIDED = "which unit runs it (CPU, GPU, Neural Engine) is decided by the device: not checked"


@dataclass
class Blobs:
    """The entries of the weight files that the program points to; each is counted once."""

    folder: Path
    sizes: dict[tuple[str, int], int] = field(default_factory=dict)

    def claim(self, value: Any) -> int:
        """The bytes of a value's entry, 0 where another weight has them already. Raises ValueError where it is cut."""
        place = (value.blobFileValue.fileName.rpartition("/")[2], int(value.blobFileValue.offset))
        if place in self.sizes:
            return 0
        file = self.folder / place[0]
        with file.open("rb") as stream:
            stream.seek(place[1])
            head = stream.read(BLOB.size)
        if len(head) < BLOB.size:
            raise ValueError(f"{place[0]} is cut short: nothing at byte {place[1]}")
        sentinel, _, size, start = BLOB.unpack(head)
        if sentinel != SENTINEL or start + size > file.stat().st_size:
            raise ValueError(f"{place[0]} is cut short or damaged at byte {place[1]}")
        self.sizes[place] = size
        return int(size)


def inspect(path: Path) -> Inspection:
    """Raises ExportError for a package that cannot be read; MissingExtraError without coremltools."""
    require("coreml", purpose="reading a Core ML package")
    try:
        spec = _spec(path)
        blobs = Blobs(path / "Data" / mlpackage.WEIGHTS)
        programs = {name: function.block_specializations[function.opset] for name, function in _functions(spec)}
        methods = tuple(_method(name, block, spec) for name, block in programs.items())
        weights = tuple(weight for block in programs.values() for weight in _weights(block, blobs))
    except EdgegenError:
        raise
    except Exception as e:
        raise mlpackage.unreadable(path, e) from e
    total = nbytes_of(path)
    metadata = _metadata(spec)
    return Inspection(
        file=path.name,
        kind="Core ML",
        nbytes=total,
        methods=methods,
        weights=weights,
        bytes_by_kind=bytes_by_kind(total, weights, program=spec.ByteSize()),
        metadata=metadata,
        signature=signature_in(metadata.get(f"{NAMESPACE}signature")),
        needs=_needs(spec),
        notes=(*_precision(programs), UNDECIDED),
        hints=(*common_hints(methods, weights), *_hints(methods, weights, spec)),
    )


def _spec(path: Path) -> Any:
    """The Model protobuf that the manifest names.

    By the message classes of coremltools alone: importing all of it takes seconds, and torch.
    """
    model = mlpackage.model_file(path)
    spec = _messages().Model.FromString(read_bytes(model, largest=LARGEST_PROTOBUF))
    if spec.WhichOneof("Type") != "mlProgram":
        raise ValueError(f"{model.name} holds {spec.WhichOneof('Type') or 'nothing'}, not an ML Program")
    return spec


def _messages() -> Any:
    """coremltools.proto.Model_pb2, without what else `import coremltools` brings."""
    if "coremltools" in sys.modules:
        return importlib.import_module("coremltools.proto.Model_pb2")
    if MESSAGES not in sys.modules:
        package = importlib.util.find_spec("coremltools")
        assert package is not None
        assert package.submodule_search_locations is not None
        folder = Path(next(iter(package.submodule_search_locations))) / "proto"
        module_spec = importlib.util.spec_from_file_location(
            MESSAGES, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert module_spec is not None
        assert module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[MESSAGES] = module
        module_spec.loader.exec_module(module)
    return importlib.import_module(f"{MESSAGES}.Model_pb2")


def _functions(spec: Any) -> list[tuple[str, Any]]:
    return sorted(spec.mlProgram.functions.items())


def _metadata(spec: Any) -> dict[str, str]:
    metadata = spec.description.metadata
    fields = {name: getattr(metadata, name) for name in ("shortDescription", "author", "license", "versionString")}
    return {**{name: text for name, text in fields.items() if text}, **dict(sorted(metadata.userDefined.items()))}


def _method(name: str, block: Any, spec: Any) -> Method:
    described = spec.description
    if described.functions:
        described = next((entry for entry in described.functions if entry.name == name), described)
    operations = Counter(op.type for op in block.operations if op.type != "const")
    return Method(
        name=name,
        inputs=tuple(_value(entry) for entry in described.input),
        outputs=tuple(_value(entry) for entry in described.output),
        operations=dict(operations.most_common()),
        macs=count_macs(block, {entry.name: shape_of(entry.type) for entry in spec.mlProgram.functions[name].inputs}),
    )


def _value(entry: Any) -> Value:
    kind = entry.type.WhichOneof("Type")
    if kind == "imageType":
        image = entry.type.imageType
        channels = 1 if "GRAYSCALE" in image.ColorSpace.Name(image.colorSpace) else 3
        return Value(
            entry.name, f"image {image.ColorSpace.Name(image.colorSpace)}", (image.height, image.width, channels)
        )
    array = entry.type.multiArrayType
    name = array.ArrayDataType.Name(array.dataType).lower() if kind == "multiArrayType" else str(kind)
    return Value(entry.name, {"double": "float64"}.get(name, name), tuple(array.shape))


def dtype(kind: Any) -> str:
    """The element type of a MIL value type, in lower case: "float16", "int4"."""
    tensor = kind.tensorType
    return str(tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name).lower()


def _weights(block: Any, blobs: Blobs) -> Iterator[Weight]:
    """Compressed weights with all their parts (scales, palettes), then the plain ones."""
    constants = {op.outputs[0].name: op.attributes["val"] for op in block.operations if op.type == "const"}
    for op in block.operations:
        if op.type.startswith("constexpr_"):
            parts = {**dict(op.attributes), **_constant_inputs(op, constants)}
            nbytes = sum(blobs.claim(part) for part in parts.values() if part.HasField("blobFileValue"))
            out = op.outputs[0]
            yield Weight(out.name, _compressed(op.type, parts), tuple(int(axis) for axis in shape_of(out.type)), nbytes)
    for op in block.operations:
        value = op.attributes["val"] if op.type == "const" else None
        if value is not None and value.HasField("blobFileValue"):
            nbytes = blobs.claim(value)
            if nbytes:
                axes = tuple(int(axis) for axis in shape_of(value.type))
                yield Weight(op.outputs[0].name, dtype(value.type), axes, nbytes)


def _constant_inputs(op: Any, constants: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, argument_list in op.inputs.items():
        for argument in argument_list.arguments:
            if argument.name in constants:
                values[name] = constants[argument.name]
            elif argument.HasField("value"):
                values[name] = argument.value
    return values


def _compressed(kind: str, parts: Mapping[str, Any]) -> str:
    """What a constexpr op stores: "int8", "int4 per block", "palette 6-bit", "sparse float16"."""
    main = next((parts[name] for name in STORED if name in parts), None)
    stored = dtype(main.type) if main is not None else "?"
    if "lut" in parts:
        axes = shape_of(parts["lut"].type)
        entries = int(axes[0] if len(axes) == 1 else axes[-2])  # iOS 16: (entries,); iOS 18: (..., entries, vector)
        stored = f"palette {entries.bit_length() - 1}-bit"
    elif "blockwise" in kind:
        stored = f"{stored} per block"
    return f"sparse {stored}" if "sparse" in kind else stored


def _precision(programs: Mapping[str, Any]) -> list[str]:
    count = Counter(
        dtype(op.outputs[0].type)
        for block in programs.values()
        for op in block.operations
        if op.outputs and not op.type.startswith("const") and op.type != "cast"
    )
    listed = ", ".join(f"{name} in {number} operations" for name, number in count.most_common())
    return [f"it computes in {listed}"] if listed else []


def _needs(spec: Any) -> tuple[str, ...]:
    version = spec.specificationVersion
    sets = sorted({function.opset for _, function in _functions(spec)})
    systems = mlpackage.SYSTEMS.get(version)
    system = f"iOS {systems.ios}, macOS {systems.macos}" if systems else "a system that edgegen does not know"
    return (f"specification version {version}: {system} or newer", f"operator sets: {', '.join(sets)}")


def _hints(methods: tuple[Method, ...], weights: tuple[Weight, ...], spec: Any) -> Iterator[str]:
    if any(weight.dtype == "palette 4-bit" for weight in weights):
        yield "4-bit palettes of coremltools 9 were wrong on some Neural Engines (coremltools #2716): try on a device"
    if any(isinstance(axis, str) for method in methods for value in method.inputs for axis in value.shape):
        yield "open shapes keep it off the Neural Engine: enumerate them"
    flexible = [
        e.name for e in spec.description.input if e.type.multiArrayType.WhichOneof("ShapeFlexibility") == "shapeRange"
    ]
    if flexible:
        yield f"a range of shapes ({', '.join(flexible)}) keeps it off the Neural Engine: enumerate the shapes"
