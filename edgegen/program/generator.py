"""A one-step generator on its way to files: captured and folded once, saved once for all processes that lower it."""

import io
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from edgegen.program.fold import Folded, fold
from edgegen.support.storage import storage_errors
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature


@dataclass(frozen=True)
class SavedProgram:
    """A captured program in a file of torch.export.save; an `unfolded` one is folded by whoever loads it."""

    path: Path
    unfolded: bool


def save_program(program: ExportedProgram, path: Path, *, unfolded: bool = False) -> SavedProgram:
    """Writes `program` to `path`. Raises StorageError."""
    with storage_errors(path), _FailLater(path, "wb") as file:
        with quiet(EXPORT):
            torch.export.save(program, file)
        if file.error is not None:
            raise file.error
    return SavedProgram(path, unfolded)


class _FailLater(io.FileIO):
    """A file whose `write` never raises, because torch's writer aborts the process then; `error` is what it met."""

    error: OSError | None = None

    def write(self, content: Any) -> int:
        rest = memoryview(content)
        while rest and self.error is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as e:
                self.error = e
        return len(content)


class Generator:
    """A one-step `module` with its `signature`; what is made of it is made when it is first asked for, and kept.

    Saved programs lie in a temporary folder that goes with the object.
    """

    def __init__(self, module: nn.Module, signature: Signature) -> None:
        self.module, self.signature = module, signature
        self._folded: dict[bool, Folded] = {}
        self._saved: dict[bool, SavedProgram] = {}

    def folded(self, *, any_size: bool = False) -> Folded:
        """See `fold`."""
        if any_size not in self._folded:
            self._folded[any_size] = fold(self.module, self.signature, any_size=any_size)
        return self._folded[any_size]

    def saved(self, *, any_size: bool = False) -> SavedProgram:
        """The program as it was captured, for `build`."""
        if any_size not in self._saved:
            path = self._folder() / ("any_size.pt2" if any_size else "program.pt2")
            self._saved[any_size] = save_program(self.folded(any_size=any_size).program, path, unfolded=True)
        return self._saved[any_size]

    def _folder(self) -> Path:
        folder = tempfile.mkdtemp(prefix="edgegen-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)
