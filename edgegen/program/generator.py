"""A one-step generator that becomes files: captured and folded once, saved once for all processes that lower it."""

import io
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from edgegen.program.fold import FoldResult, fold, fold_program
from edgegen.program.inputs import InputSource, RealInputs
from edgegen.support.scratch import new_folder
from edgegen.support.storage import storage_errors
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature


@dataclass(frozen=True)
class SavedProgram:
    """A captured program in a file of torch.export.save; an `unfolded` one is folded by the process that loads it."""

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


def load_graph(saved: SavedProgram, signature: Signature) -> fx.GraphModule:
    """The folded graph of a program that `save_program` wrote, with weights of its own.

    For files of this run only: what a user brings is read by edgegen.models.sources.
    """
    with quiet(EXPORT):
        program = torch.export.load(saved.path)
    return fold_program(program, signature) if saved.unfolded else program.module(check_guards=False)


class Generator:
    """A one-step `module` with its `signature`; the folded and the saved program are made at their first use and kept.

    `real` are inputs that a user gave, `unstated` as in InputSource. Saved programs are in a temporary
    folder that is removed with the object.
    """

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        *,
        real: RealInputs | None = None,
        unstated: tuple[str, ...] = (),
    ) -> None:
        self.module, self.signature, self.real, self.unstated = module, signature, real, unstated
        self._folded: dict[bool, FoldResult] = {}
        self._saved: dict[bool, SavedProgram] = {}

    def inputs(self, seed: int) -> InputSource:
        """Its inputs: those that the user gave, the others drawn from `seed`."""
        return InputSource(self.signature, seed, self.real, self.unstated)

    def folded(self, *, any_size: bool = False) -> FoldResult:
        """The result of `fold`. Raises ExportError as `fold` does."""
        if any_size not in self._folded:
            self._folded[any_size] = fold(self.module, self.signature, any_size=any_size)
        return self._folded[any_size]

    def saved(self, *, any_size: bool = False) -> SavedProgram:
        """The file of the unfolded program, for `build`."""
        if any_size not in self._saved:
            path = self._folder() / ("any_size.pt2" if any_size else "program.pt2")
            self._saved[any_size] = save_program(self.folded(any_size=any_size).program, path, unfolded=True)
        return self._saved[any_size]

    def _folder(self) -> Path:
        folder = new_folder()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder
