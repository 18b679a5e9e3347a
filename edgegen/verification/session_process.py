"""Exported files opened and run in a child process, where a runtime may die or take too much memory.

Every file goes this way, those of our own Core ML evaluator too: it computes with torch, whose native code gets its
sizes from the file. Arrays pass through files in a temporary folder, everything else as JSON.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen import registry
from edgegen.errors import ExportError
from edgegen.exporters.base import Session, further
from edgegen.inspection.integer_kernels import arithmetic
from edgegen.support.memory import memory_limit_of
from edgegen.support.service import Service
from edgegen.support.storage import storage_errors

# Until a runtime counts as one that never ends: to open a file, and for each sample. A generator that takes a tenth of
# it on a computer is of no use on a phone, and our evaluator needs some ten times what a runtime does.
OPEN_S, SAMPLE_S = 600.0, 120.0
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RemoteSession:
    """A file that is open in a child process; good until the next file is opened there.

    `part` is the name of what it runs of those of `further`, "" for the file itself.
    """

    process: "SessionProcess"
    number: int
    path: Path
    method: str
    part: str = ""
    further: Mapping[str, "RemoteSession"] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Raises ExportError where the runtime refuses the inputs, dies or takes too much memory."""
        return self.process.run(self, inputs)


class SessionProcess:
    """Opens files in one child process, one at a time; a child that died is replaced when the next file is opened.

    `threads` are those of torch; None: one for each core. `memory_limit` in bytes; None: by the size of the file. What
    takes longer than `open_s`, and than `sample_s` more for each sample of a run, is ended.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        memory_limit: int | None = None,
        open_s: float = OPEN_S,
        sample_s: float = SAMPLE_S,
    ) -> None:
        self.threads, self.memory_limit = threads, memory_limit
        self.open_s, self.sample_s = open_s, sample_s
        self.service: Service | None = None
        self.number = 0  # of the file that is open

    def start(self) -> Service:
        """Starts the child, where none is there."""
        if self.service is None or not self.service.alive:
            self.close()
            variables = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
            self.service = Service("edgegen.verification.session_process:SessionHost", variables=variables)
        return self.service

    def open(self, backend: str, path: Path) -> RemoteSession:
        """What `open` of the backend gives, from the child. Raises what that raises, and ExportError where it dies."""
        self.number += 1
        methods = self._call("open", path, _file(backend, path), doing="opened")
        parts = {
            part: RemoteSession(self, self.number, path, method, part) for part, method in methods["further"].items()
        }
        return RemoteSession(self, self.number, path, methods["method"], further=parts)

    def arithmetic(self, backend: str, path: Path) -> str:
        """See `edgegen.inspection.integer_kernels`, which opens the file once more."""
        words: str = self._call("arithmetic", path, _file(backend, path), doing="opened")
        return words

    def run(self, session: RemoteSession, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """One run of the file that is open."""
        assert session.number == self.number, "a session is good until the next file is opened"
        if self.service is None or not self.service.alive:
            raise ExportError(f"{session.path.name} is not open any more: the process that held it has ended")
        folder = self.service.folder
        save_arrays(folder / "inputs", inputs.values())
        arguments = {"folder": str(folder), "inputs": list(inputs), "part": session.part}
        samples = max((len(array) for array in inputs.values() if array.ndim), default=1)
        names = self._call("run", session.path, arguments, doing="ran", samples=samples)
        return dict(zip(names, load_arrays(folder / "outputs", len(names)), strict=True))

    def close(self) -> None:
        """Ends the child, and with it all sessions."""
        if self.service is not None:
            self.service.close()
            self.service = None

    def _call(self, method: str, path: Path, arguments: Mapping[str, Any], *, doing: str, samples: int = 0) -> Any:
        return self.start().call(
            method,
            arguments,
            doing=f"{doing} {path.name}",
            memory_limit=self.memory_limit or memory_limit_of(path),
            time_limit_s=self.open_s + samples * self.sample_s,
        )


class SessionHost:
    """The child's part: holds the session of one file."""

    def __init__(self) -> None:
        self.session: Any = None

    def open(self, *, backend: str, path: str) -> dict[str, Any]:
        """In words, what runs the file, and what runs each of the further parts of it."""
        self.session = None  # its memory is free before the next file takes its own
        session: Session = registry.load("backend", backend).open(Path(path))
        self.session = session
        return {"method": session.method, "further": {name: part.method for name, part in further(session).items()}}

    def run(self, *, folder: str, inputs: Sequence[str], part: str) -> list[str]:
        """The names of the outputs, whose arrays lie in `folder`."""
        session = further(self.session)[part] if part else self.session
        arrays = load_arrays(Path(folder) / "inputs", len(inputs))
        outputs = session(dict(zip(inputs, arrays, strict=True)))
        save_arrays(Path(folder) / "outputs", outputs.values())
        return list(outputs)

    def arithmetic(self, *, backend: str, path: str) -> str:
        return arithmetic(backend, Path(path))


def _file(backend: str, path: Path) -> dict[str, str]:
    return {"backend": backend, "path": str(path)}


def save_arrays(stem: Path, arrays: Iterable[NDArray[Any]]) -> None:
    """By number, because names of inputs need not be names of files. Raises StorageError."""
    for number, array in enumerate(arrays):
        path = numbered(stem, number)
        with storage_errors(path):
            np.save(path, array, allow_pickle=False)


def load_arrays(stem: Path, count: int) -> list[NDArray[Any]]:
    """What `save_arrays` wrote; the files are gone then."""
    arrays: list[NDArray[Any]] = []
    for number in range(count):
        path = numbered(stem, number)
        arrays.append(np.load(path, allow_pickle=False))
        path.unlink()
    return arrays


def numbered(stem: Path, number: int) -> Path:
    return stem.with_name(f"{stem.name}-{number}.npy")
