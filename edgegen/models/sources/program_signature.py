"""The signature of an exported program that came without one, guessed from the shapes and the use of its inputs."""

from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from edgegen.errors import DataError
from edgegen.models.sources.signature_file import SignatureFile, Size, TensorTable
from edgegen.types import Role

DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.int32: "int32"}
GIVE = "give --signature FILE that says what it is"


def guess(program: ExportedProgram, path: Path) -> SignatureFile:
    """The first float input of three axes or more is noise, whole numbers of one axis are classes. Raises DataError."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    tables: list[TensorTable] = []
    for node in nodes:
        tables.append(_input(node, path, earlier_roles={table.role for table in tables}))
    # The noise stands first in a signature only if it does in the program: the order of the inputs is the program's.
    if not tables or tables[0].role != "noise":
        raise DataError(f"{path}: its first input is no float tensor of three axes or more, so no noise; {GIVE}")
    outputs = program.graph_signature.user_outputs
    if len(outputs) != 1:
        raise DataError(f"{path}: the program has {len(outputs)} outputs; a source gives one tensor")
    output_node = next(node for node in reversed(program.graph.nodes) if node.op == "output")
    value = next(arg for arg in output_node.args[0] if isinstance(arg, fx.Node) and arg.name == outputs[0])
    return SignatureFile(inputs=tuple(tables), outputs=(_output(value.meta["val"], path),))


def _input(node: fx.Node, path: Path, *, earlier_roles: set[Role]) -> TensorTable:
    value = node.meta["val"]
    shape, dtype = _shape(value, node.name, path), _dtype(value, node.name, path)
    if dtype != "float32":
        count = _classes(node)
        if len(shape) == 1 and count and "class" not in earlier_roles:
            return TensorTable(name="class_labels", shape=shape, dtype=dtype, role="class", high=count - 1)
        raise DataError(f"{path}: input '{node.name}' {list(shape)} {dtype} is not used as a class; {GIVE}")
    if len(shape) == 1:
        raise DataError(
            f"{path}: input '{node.name}' has one number for each sample: a time? {GIVE}; for a time, time = 1.0 and "
            f'time_argument = "{node.name}"'
        )
    if "noise" not in earlier_roles and len(shape) >= 3:
        return TensorTable(name="sample", shape=shape, role="noise")
    if len(shape) == 4:
        pixels = shape[1] in (1, 3) and "image" not in earlier_roles
        return TensorTable(name="image", shape=shape, role="image") if pixels else _feature(node, shape)
    if len(shape) == 3 and "text" not in earlier_roles:
        return TensorTable(name="encoder_hidden_states", shape=shape, role="text")
    return _feature(node, shape)


def _feature(node: fx.Node, shape: tuple[Size, ...]) -> TensorTable:
    return TensorTable(name=node.name, shape=shape, role="features")


def _output(value: Any, path: Path) -> TensorTable:
    shape = _shape(value, "the output", path)
    if _dtype(value, "the output", path) != "float32":
        raise DataError(f"{path}: the output is {value.dtype}; a source gives float32")
    if len(shape) == 4 and shape[1] in (1, 3):
        return TensorTable(shape=shape, role="image")
    return TensorTable(shape=shape, role="latent" if len(shape) == 4 else "signal")


def _shape(value: Any, name: str, path: Path) -> tuple[Size, ...]:
    if not isinstance(value, torch.Tensor) or not value.ndim:
        raise DataError(f"{path}: '{name}' is no tensor with a batch axis; {GIVE}")
    if not all(isinstance(size, int) for size in value.shape[1:]):
        raise DataError(
            f"{path}: '{name}' has a dynamic size beside the batch: {list(map(str, value.shape))}; "
            "export it with fixed ones"
        )
    first: Size = int(value.shape[0]) if isinstance(value.shape[0], int) else "batch_size"
    return (first, *(int(size) for size in value.shape[1:]))


def _dtype(value: torch.Tensor, name: str, path: Path) -> Any:
    if value.dtype not in DTYPES:
        raise DataError(f"{path}: '{name}' is {value.dtype}; supported: {', '.join(DTYPES.values())}")
    return DTYPES[value.dtype]


def _classes(node: fx.Node) -> int | None:
    """The rows of the table that the input's numbers are looked up in, None where there is none."""
    for user in node.users:
        if user.target is torch.ops.aten.embedding.default and user.args[1] is node:
            table = user.args[0]
            return int(table.meta["val"].shape[0]) if isinstance(table, fx.Node) else None
    return None
