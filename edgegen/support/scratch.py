"""Temporary folders, all in one folder of this process, which no killed process leaves behind for good.

    $TMPDIR/edgegen-XXXXXXXX/      of one process, locked while it lives: who can lock it may remove it
        lock
        XXXXXXXX/                  `new_folder`, `temporary_folder`; TMPDIR of our child processes is the folder above

It is removed at exit; by the guardian where this process is killed; else by the next one that makes such a folder.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from edgegen.support import guardian

PREFIX, LOCK = "edgegen-", "lock.edgegen"


def new_folder() -> Path:
    """A new folder that goes with this process at the latest. Raises StorageError."""
    from edgegen.support.storage import storage_errors  # here: it imports numpy, and `worker` measures its memory

    with storage_errors(Path(tempfile.gettempdir()) / "edgegen"):
        return Path(tempfile.mkdtemp(dir=of_this_process()))


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder for the length of a block. Raises StorageError."""
    folder = new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def of_this_process() -> Path:
    """The folder that all others of this process are in."""
    return _root(tempfile.gettempdir())


@cache
def _root(place: str) -> Path:
    sweep(Path(place))
    root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    guardian.watch_folder(root)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    # Locked before it has its name: nobody who sweeps meanwhile can lock it. Stays open as long as the process lives.
    descriptor = os.open(root / "new", os.O_CREAT | os.O_WRONLY, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: this folder is not swept
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (root / "new").rename(root / LOCK)
    return root


def sweep(place: Path) -> None:
    """Removes the folders of processes that have ended: those with our lock, which nobody holds."""
    with os.scandir(place) as entries:
        ours = [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX)]
    for folder in ours:
        with contextlib.suppress(OSError):  # another user's, in use, or just removed by another process
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / LOCK, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
