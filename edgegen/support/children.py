"""Child processes that are kept for the next piece of work: a vendor's tools take seconds to import."""

import contextlib
import threading
from collections.abc import Hashable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import psutil

from edgegen.support.isolation import Child
from edgegen.support.memory import resident_bytes

# A child process with its vendor's tools holds that much before it works; one that holds more afterwards is ended.
CHILD_BYTES = 1_200_000_000


class Children:
    """Processes of edgegen.support.isolation, for `with`: those that nothing uses wait until its end.

    `preload` ("module:name") is what a process calls with `arguments` before it waits, and what it is known by. All
    methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[Hashable, Child]] = []
        self._busy: list[tuple[Hashable, Child]] = []

    @contextlib.contextmanager
    def child(self, preload: str, *, keep: bool = True, **arguments: Any) -> Iterator[Child]:
        """One that waits, or a new one, which works for this block alone; without `keep` it is ended then."""
        child = self._take((preload, *sorted(arguments.items())), preload, arguments)
        try:
            yield child
        finally:
            self._give(child, keep=keep)

    def _take(self, key: Hashable, preload: str, arguments: Mapping[str, Any]) -> Child:
        with self._lock:
            ended = [row for row in self._idle if row[1].process.poll() is not None]  # killed while it waited
            self._idle = [row for row in self._idle if row not in ended]
            row = next((row for row in self._idle if row[0] == key), None)
            if row is None:
                row = (key, Child(preload, arguments))
            else:
                self._idle.remove(row)
            self._busy.append(row)
        for _, child in ended:
            child.close()
        return row[1]

    def _give(self, child: Child, *, keep: bool) -> None:
        """It is ended, too, where it died, has grown, or where others need its memory."""
        with self._lock:
            row = next((row for row in self._busy if row[1] is child), None)
            if row is not None:
                self._busy.remove(row)
                if keep and child.process.poll() is None and _is_small(child):
                    self._idle.append(row)
                    return
        child.close()

    def close(self) -> None:
        """Ends all of them, also those that still work: what waits for their answer gets an ExportError."""
        with self._lock:
            rows, self._idle, self._busy = [*self._idle, *self._busy], [], []
        for _, child in rows:
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_small(child: Child) -> bool:
    """Whether its memory is that of its imports, and not needed elsewhere."""
    return resident_bytes(child.process.pid) <= CHILD_BYTES <= int(psutil.virtual_memory().available)
