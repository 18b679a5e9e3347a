"""Compares a file with the SHA-256 that was recorded when it was written; the one place that does.

A hash is computed once while inode, size and times of a file stand the same, and kept in a file where that is wanted.
"""

import time
from pathlib import Path
from typing import Any

from edgegen.errors import DataError
from edgegen.support.storage import read_json, sha256_of, write_json

SCHEMA = "edgegen.hashes/1"
SHOWN = 12  # digits of a hash in a message
# A file that was written a moment ago may be written again without another time: file systems count in ticks.
SETTLED_NS = 2_000_000_000
Stamp = list[int]


class FileHashes:
    """SHA-256 of files below the folder of `store`, which keeps them by relative path; None keeps them here alone."""

    def __init__(self, store: Path | None = None) -> None:
        self.store = store
        self._files: dict[str, dict[str, Any]] | None = None
        self._changed = False

    def check(self, path: Path, sha256: str, *, record: Path, remedy: str) -> None:
        """Raises DataError where the file or folder `path` is missing, or is not what `record` says of it."""
        actual = self.sha256(path)
        if actual != sha256:
            raise DataError(
                f"{path} does not hold what was written there: its SHA-256 is {actual[:SHOWN]}..., {record.name} says "
                f"{str(sha256)[:SHOWN]}...; {remedy}"
            )

    def sha256(self, path: Path) -> str:
        """As `sha256_of`. Raises DataError where there is nothing."""
        if not path.is_file():
            return sha256_of(path)
        files, name, before = self._known(), self._name(path), _stamp(path)
        kept = files.get(name)
        if kept is not None and kept["stamp"] == before:
            return str(kept["sha256"])
        digest = sha256_of(path)
        if before == _stamp(path) and max(before[2:]) + SETTLED_NS < time.time_ns():
            files[name] = {"stamp": before, "sha256": digest}
            self._changed = True
        return digest

    def save(self) -> None:
        """Writes what is new to `store`, without the files that are gone. Raises StorageError."""
        if self.store is None or not self._changed:
            return
        files = {name: kept for name, kept in self._known().items() if (self.store.parent / name).is_file()}
        write_json(self.store, {"schema": SCHEMA, "files": files})
        self._changed = False

    def _name(self, path: Path) -> str:
        return str(path if self.store is None else path.relative_to(self.store.parent))

    def _known(self) -> dict[str, dict[str, Any]]:
        if self._files is None:
            self._files = {} if self.store is None else _read(self.store)
        return self._files


def _stamp(path: Path) -> Stamp:
    """The time of the last change of the inode is in it because no program can set it back."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(store: Path) -> dict[str, dict[str, Any]]:
    """A store that is missing, damaged or of another version knows nothing: every file is hashed again."""
    try:
        content = read_json(store)
        if content["schema"] != SCHEMA:
            return {}
        return {
            str(name): {"stamp": list(kept["stamp"]), "sha256": str(kept["sha256"])}
            for name, kept in content["files"].items()
        }
    except (DataError, KeyError, TypeError, AttributeError):
        return {}
