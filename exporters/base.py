"""What a backend is: `lower` a captured program to a file, `open` the file as a session of named arrays."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegen.parity import Session
from edgegen.types import Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["Arrays", "Backend", "Precision", "Session", "one_by_one"]

Precision = Literal["fp32", "fp16"]
Arrays = dict[str, NDArray[Any]]


class Backend(Protocol):
    """One kind of file. Add one by a module in this folder that ends with `BACKEND = ...()`, and a registry line."""

    @property
    def suffix(self) -> str:
        """The end of the file's name: ".onnx"."""

    @property
    def batch(self) -> int | None:
        """The static batch that `lower` expects of the program; None: the dynamic axis batch_size."""

    def lower(
        self,
        program: "ExportedProgram",
        path: Path,
        *,
        signature: Signature,
        precision: Precision,
        metadata: Mapping[str, str],
    ) -> None:
        """Write `path`. The keys of `metadata` come without a namespace; the backend adds its own.

        Raises ExportError where the vendor's converter fails, MissingExtraError where it is not installed.
        """

    def open(self, path: Path) -> Session:
        """Load the file on this machine. Raises ExportError where it cannot be run here."""


def one_by_one(inputs: Mapping[str, NDArray[Any]], run: Callable[[Arrays], Arrays]) -> Arrays:
    """Run a static batch-1 file on every sample of `inputs` in turn and stack what comes out along the batch."""
    outputs = [run(sample) for sample in _samples(inputs)]
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def _samples(inputs: Mapping[str, NDArray[Any]]) -> Iterator[Arrays]:
    count = len(next(iter(inputs.values())))
    for i in range(count):
        yield {name: values[i : i + 1] for name, values in inputs.items()}
