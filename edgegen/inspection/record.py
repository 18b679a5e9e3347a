"""An exported file's contents, read from the file alone: one record for ONNX, ExecuTorch and Core ML, one entry point.

Every reader counts multiplications with stored weights apart from products of two computed tensors (attention): only
the first can be compressed with the weights. All counts are for one call, with a symbolic batch axis taken as 1.
"""

import importlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgegen.errors import DataError, UsageError, unknown_name

READERS = {
    ".onnx": "edgegen.inspection.onnx",
    ".ort": "edgegen.inspection.onnx",
    ".pte": "edgegen.inspection.executorch",
    ".bpte": "edgegen.inspection.executorch",
    ".mlpackage": "edgegen.inspection.coreml",
}
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Value:
    """An input or output; an axis is a number, or the name of a symbolic one ("?" where it has no name)."""

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class Weight:
    """A stored tensor: `dtype` is what is stored ("int8", "palette 4-bit"), `nbytes` what it takes with its scales."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Macs:
    """Multiplications with an addition, batch 1: by stored `weights`, and between two computed tensors (`attention`).

    `uncounted` names the operations whose share is not in either number, because their shapes are not in the file.
    """

    weights: int = 0
    attention: int = 0
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.weights + self.attention


@dataclass(frozen=True)
class Partition:
    """What one piece of hardware or library runs in one go; `nbytes` of its own code in the file, where it has any."""

    backend: str
    operations: Mapping[str, int]
    nbytes: int | None = None


@dataclass(frozen=True)
class OutsideOperation:
    """An operation that the delegate left outside: how often, why, and edgegen's rewrite that would help."""

    operation: str
    count: int
    reason: str
    rewrite: str | None = None


@dataclass(frozen=True)
class Method:
    """One entry point: its inputs and outputs, its operations by type, and how they are divided."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operations: Mapping[str, int]
    macs: Macs
    partitions: tuple[Partition, ...] = ()
    outside: tuple[OutsideOperation, ...] = ()

    @property
    def nodes_outside(self) -> int:
        return sum(entry.count for entry in self.outside)


@dataclass(frozen=True)
class Inspection:
    """The contents of `file`; `bytes_by_kind` adds up to `nbytes`.

    `signature` is the one that edgegen wrote (None in files of others), `constants` the methods that only give a value
    (ExecuTorch), `needs` what a device must have, `notes` what could not be checked here, `hints` what would help.
    """

    file: str
    kind: str
    nbytes: int
    methods: tuple[Method, ...]
    weights: tuple[Weight, ...]
    bytes_by_kind: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    signature: Mapping[str, Any] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert sum(self.bytes_by_kind.values()) == self.nbytes, (self.bytes_by_kind, self.nbytes)

    @property
    def main(self) -> Method:
        """The method that an app calls: `forward` where there is one, else the first."""
        return next((method for method in self.methods if method.name == "forward"), self.methods[0])

    @property
    def parameters(self) -> int:
        """Elements of all stored weights, quantized ones included."""
        return sum(weight.parameters for weight in self.weights)

    def to_dict(self) -> dict[str, Any]:
        """The record with the derived numbers, for JSON."""
        methods = [
            {
                **asdict(method),
                "macs": {**asdict(method.macs), "total": method.macs.total},
                "nodes_outside": method.nodes_outside,
            }
            for method in self.methods
        ]
        return {**asdict(self), "methods": methods, "parameters": self.parameters}


def inspect(path: Path) -> Inspection:
    """Read an exported file without running it and without the code of its network.

    Raises DataError where nothing is there, UsageError for a suffix that is not in READERS, ExportError for a file that
    is cut short or of another kind, MissingExtraError where the format's package is not installed.
    """
    if path.suffix not in READERS and path.is_dir():
        files = sorted(entry.name for entry in path.iterdir() if entry.suffix in READERS)
        inside = f"one of its files: {', '.join(files)}" if files else "a file, or a source with config.json"
        raise UsageError(f"cannot inspect {path}: a folder; give {inside}")
    if path.suffix not in READERS:
        raise UsageError(f"cannot inspect {path.name}: {unknown_name('suffix', path.suffix, READERS)}")
    if not path.exists():
        raise DataError(f"cannot inspect {path}: nothing is there")
    record: Inspection = importlib.import_module(READERS[path.suffix]).inspect(path)
    return record


class Tally:
    """Adds up the multiplications of one method while its reader walks through the operations."""

    def __init__(self) -> None:
        self._weights = 0
        self._attention = 0
        self._uncounted: Counter[str] = Counter()

    def add(self, operation: str, macs: int | None, *, computed: bool) -> None:
        """`macs` None: the shapes are not known; `computed`: both factors are computed, as in attention."""
        if macs is None:
            self._uncounted[operation] += 1
        elif computed:
            self._attention += macs
        else:
            self._weights += macs

    def macs(self) -> Macs:
        return Macs(self._weights, self._attention, tuple(f"{n} {name}" for name, n in sorted(self._uncounted.items())))


def product(*shapes: Iterable[int | str] | None) -> int | None:
    """The product of all axes; None where a shape or one of its axes is not known."""
    sizes: list[int] = []
    for shape in shapes:
        if shape is None:
            return None
        for axis in shape:
            if not isinstance(axis, int):
                return None
            sizes.append(axis)
    return math.prod(sizes)


def bytes_by_kind(total: int, weights: Sequence[Weight], **parts: int) -> dict[str, int]:
    """Weights by dtype, then `parts`, then what is left of `total` as "other"; empty kinds are left out."""
    kinds: Counter[str] = Counter()
    for weight in weights:
        kinds[f"weights {weight.dtype}"] += weight.nbytes
    sizes = {**dict(sorted(kinds.items())), **{name.replace("_", " "): size for name, size in parts.items()}}
    sizes["other"] = total - sum(sizes.values())
    return {name: size for name, size in sizes.items() if size}


def common_hints(methods: Sequence[Method], weights: Sequence[Weight]) -> list[str]:
    """Hints for every kind of file: on a time input, which one step does not need, and on weights left in float32."""
    hints = []
    names = {value.name for method in methods for value in method.inputs}
    if names & {"timestep", "t", "time"}:
        hints.append("it takes the time as an input, but one step runs at one time: fold it (edgegen export does)")
    total = sum(weight.nbytes for weight in weights)
    floats = sum(weight.nbytes for weight in weights if weight.dtype == "float32")
    if floats > total / 2:
        share = round(100 * floats / total)
        hints.append(f"{share} % of the weights' bytes are float32: int8 takes a quarter of that, float16 a half")
    return hints
