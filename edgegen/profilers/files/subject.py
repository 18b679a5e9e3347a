"""A file that is to be measured: what is known of it before anything runs, and the same file on a device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen import noise, registry
from edgegen.errors import DataError, UsageError
from edgegen.exporters.base import backends_by_suffix
from edgegen.formats.manifest import checked_entry
from edgegen.inspection.record import Value, inspect
from edgegen.profilers.devices.device import Command, Device
from edgegen.profilers.runners.programs import CPU
from edgegen.profilers.schema import FileFacts, Format, Tensor
from edgegen.profilers.timing.jobs import FileJob
from edgegen.support.extras import require
from edgegen.support.storage import sha256_of
from edgegen.types import MOST_ELEMENTS

# By suffix, which of a device's runners takes the file.
FORMATS: Mapping[str, Format] = {".onnx": "onnx", ".ort": "onnx", ".pte": "pte", ".mlpackage": "mlpackage"}
SEED = 0


@dataclass(frozen=True)
class Subject:
    """A file and what is known of it: `parity` is the status in the manifest beside it, `arrays` are its inputs."""

    path: Path
    facts: FileFacts
    parity: str | None
    arrays: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Placement:
    """A subject on a device: the `command` that starts its runner there, and the `inputs` as the runner takes them.

    `provider` is that of ONNX Runtime which the runner was told to use.
    """

    subject: Subject
    command: Command
    inputs: tuple[str, ...]
    provider: str = CPU

    def job(self, label: str, threads: int) -> FileJob:
        """What the protocol times."""
        return FileJob(label, self.command, (threads, *self.inputs), [str(self.subject.path.resolve())])


def read_subject(path: Path, name: str | None = None) -> Subject:
    """What is known of a file, which is measured under `name`, its own where that is None.

    Raises UsageError, DataError and MissingExtraError where it cannot be measured.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot measure {path.name}: there are runners for {', '.join(FORMATS)}")
    require(backends_by_suffix()[path.suffix], purpose=f"measuring {path.name}")
    row, sizes = _manifest(path)
    kind = registry.load("backend", backends_by_suffix()[path.suffix]).variants.get(row.get("variant", ""))
    if kind is not None and kind.simulator:
        raise UsageError(
            f"cannot measure {path.name}: it is for {kind.about.partition(':')[0]}, which no runner drives"
        )
    inspection = inspect(path)
    inputs = tuple(_tensor(value, sizes) for value in inspection.main.inputs)
    facts = FileFacts(
        name=name or path.name,
        format=FORMATS[path.suffix],
        sha256=sha256_of(path),
        nbytes=inspection.nbytes,
        scheme=row.get("scheme"),
        inputs=inputs,
    )
    return Subject(path, facts, row.get("parity", {}).get("status"), tuple(map(_made_up, inputs)))


def untimed_reason(file: str) -> str:
    """Why no runner takes a file of this name; "" where one does."""
    suffix = Path(file).suffix
    return "" if suffix in FORMATS else f"no runner for {suffix} files"


def place(subject: Subject, device: Device, temporary: Path, *, provider: str = CPU) -> Placement:
    """Puts the file, its inputs and its runner onto the device. Raises DeviceError, UsageError for the provider."""
    path, name = subject.path, subject.facts.name
    weights = path.with_name(f"{path.name}.data")  # those above 2 GB lie beside the file, which knows them by that name
    if weights.exists():
        device.put(weights, f"{name}.files/{weights.name}")
        remote_path = device.put(path, f"{name}.files/{path.name}")
    else:
        remote_path = device.put(path, name)
    inputs = []
    for number, (tensor, array) in enumerate(zip(subject.facts.inputs, subject.arrays, strict=True)):
        local = temporary / f"{name}.{number}.bin"
        array.tofile(local)
        inputs.append(f"{'x'.join(map(str, tensor.shape))}:{device.put(local, local.name)}")
    command = device.runner(subject.facts.format, remote_path, provider)
    return Placement(subject, command, tuple(inputs), provider)


def _manifest(path: Path) -> tuple[Mapping[str, Any], dict[str, tuple[int, ...]]]:
    """What manifest.json beside the file says of it: its row, and its inputs' sizes.

    The sizes are those of the signature, for files whose axes are open, with a batch of 1. Raises DataError where the
    file is not the one of the manifest.
    """
    entry = checked_entry(path)
    if entry is None:
        return {}, {}
    specs = entry.signature.get("inputs", [])
    return entry.row, {spec["name"]: tuple(_whole(size) for size in spec["shape"]) for spec in specs}


def _whole(size: int | str) -> int:
    return size if isinstance(size, int) else 1


def _tensor(value: Value, sizes: Mapping[str, tuple[int, ...]]) -> Tensor:
    shape = [1 if index == 0 and not isinstance(size, int) else size for index, size in enumerate(value.shape)]
    known = sizes.get(value.name, ())
    if len(known) == len(shape):
        shape = [size if isinstance(size, int) else default for size, default in zip(shape, known, strict=True)]
    symbolic = [str(size) for size in shape if not isinstance(size, int)]
    if symbolic:
        raise UsageError(
            f"the input {value.name} has open sizes ({', '.join(symbolic)}): export the size to be measured"
        )
    whole = tuple(int(size) for size in shape)
    if any(size < 1 for size in whole) or math.prod(whole) > MOST_ELEMENTS:
        raise DataError(f"the input {value.name} is {list(whole)}; 1 to {MOST_ELEMENTS:,} numbers are made up")
    return Tensor(name=value.name, dtype=value.dtype, shape=whole)


def _made_up(tensor: Tensor) -> NDArray[Any]:
    """Noise, the same on every machine; zeros for whole numbers: the first class."""
    if tensor.dtype.startswith("float"):
        values: NDArray[Any] = noise.normal(SEED, 0, 1, tensor.shape)[0].astype(tensor.dtype)
        return values
    try:
        return np.zeros(tensor.shape, tensor.dtype)
    except TypeError as e:
        raise DataError(f"the input {tensor.name} is of {tensor.dtype}, which edgegen cannot make up") from e
