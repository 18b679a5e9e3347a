"""Reading and writing of files and folders: written whole or not at all, with errors that say what to do."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError, StorageError
from edgegen.support.bounded_files import AGAIN, check_regular, opened, parse_json, read_bytes, read_errors

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 20  # bytes hashed at once
FULL = {errno.ENOSPC, errno.EDQUOT}
LEAST_FREE = 1 << 16  # bytes; a vendor that met a full disk leaves its last blocks unfilled
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """For the code that writes `path`: turns an OSError into a StorageError that says what to do."""
    try:
        yield
    except OSError as e:
        raise StorageError(_explain(path, e)) from e


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary name beside `target` for a file or a folder; after the body it is flushed to the disk and renamed.

    Makes the parent folder. An older `target` stays until the rename, and where the body fails. The temporary name has
    the suffix of `target`; those that killed processes left behind are removed. Raises StorageError.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
        try:
            yield temporary
            _flush_tree(temporary)
            _replace(temporary, target)
            _flush(target.parent)
        finally:
            _remove(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all. Raises StorageError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, obj: Any) -> None:
    """Writes UTF-8 JSON, indented, keys in the order given; NaN and infinity are a ValueError. Raises StorageError."""
    write_bytes(path, (json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path, *, infinities: bool = False) -> Any:
    """Reads JSON, as `bounded_files.parse_json` does. Raises DataError that names a file that is missing or damaged."""
    return parse_json(read_bytes(path), where=str(path), infinities=infinities)


def save_tensors(
    path: Path, tensors: "Mapping[str, NDArray[Any] | Tensor]", metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file: the same tensors and metadata give the same bytes. Raises StorageError."""
    import safetensors.torch
    import torch

    # Copies, because safetensors refuses tensors that share memory or are not contiguous.
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        if isinstance(value, torch.Tensor)
        else torch.from_numpy(np.array(value, order="C"))
        for name, value in tensors.items()
    }
    write_bytes(path, _sorted_metadata(safetensors.torch.save(copies, dict(metadata) if metadata else None)))


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file, on the CPU. Raises DataError when it is missing, corrupt or cut short."""
    import safetensors.torch

    with safetensors_errors(path):
        return safetensors.torch.load_file(path)


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, {} if it has none; reads no tensor. Raises DataError."""
    import safetensors

    with safetensors_errors(path), safetensors.safe_open(path, framework="np") as file:
        return dict(file.metadata() or {})


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is there and undamaged, as far as its size and header say; reads no tensor."""
    try:
        load_metadata(path)
    except DataError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; of a folder: of the sorted relative names, sizes and contents of its files."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in _files(path):
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
            _hash_file(file, digest)
    else:
        _hash_file(path, digest)
    return digest.hexdigest()


def nbytes_of(path: Path) -> int:
    """Bytes in a file, or in all the files of a folder. Raises DataError when there is neither."""
    if path.is_dir():
        return sum(file.stat().st_size for file in _files(path))
    if not path.exists():
        raise DataError(f"no file or folder {path}")
    return path.stat().st_size


def _explain(path: Path, e: OSError) -> str:
    if e.errno in FULL:
        return disk_full(path)
    if e.errno in REFUSED:
        why = "it is on a read-only file system" if e.errno == errno.EROFS else e.strerror
        return f"no permission to write {path} ({why}); choose another place, or change who may write there"
    other = f" ({e.filename})" if e.filename and path.name not in str(e.filename) else ""
    return f"cannot write {path}: {e.strerror or e}{other}"


def disk_full(path: Path) -> str:
    """The message where `path` cannot be written for lack of space."""
    folder = next(p for p in path.absolute().parents if p.is_dir())
    return (
        f"disk full: {shutil.disk_usage(folder).free} bytes free at {folder}, too few to write {path.name} "
        "(or your quota is used up); free some space and run the same command again"
    )


def is_disk_full(folder: Path) -> bool:
    """Whether nothing worth mentioning can be written any more; quotas are not known."""
    return shutil.disk_usage(folder).free < LEAST_FREE


def _remove_leftovers(target: Path) -> None:
    """Removes the temporary files that killed processes left for this target."""
    pattern = re.compile(rf"\.(?:tmp|old)-(\d+)-{re.escape(target.name)}")
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            _remove(Path(entry.path))


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # left by an earlier process with the same number, as is common in containers
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(temporary: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink() and not temporary.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, and a file should go there", str(target))
    if not (target.is_dir() or (temporary.is_dir() and target.exists())):
        temporary.replace(target)
        return
    # No system call replaces a folder that is not empty: the old one is renamed first, and back if that fails.
    old = target.with_name(f".old-{os.getpid()}-{target.name}")
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    _remove(old)


def _flush_tree(path: Path) -> None:
    if path.is_dir():
        for inner in path.rglob("*"):
            if not inner.is_symlink():
                _flush(inner)
    _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())


def _hash_file(path: Path, digest: "hashlib._Hash") -> None:
    with opened(path) as file:
        while block := file.read(CHUNK):
            digest.update(block)


@contextlib.contextmanager
def safetensors_errors(path: Path) -> Iterator[None]:
    """Around a library that opens `path`: checks that it is a file, and turns the library's errors into DataError."""
    import safetensors

    check_regular(path)
    with read_errors(path):
        try:
            yield
        except safetensors.SafetensorError as e:
            raise DataError(f"{path}: not a safetensors file, or cut short ({e}); {AGAIN}") from e


def _sorted_metadata(content: bytes) -> bytes:
    """The same safetensors file with its metadata in sorted order: the library's order changes from run to run.

    Format: 8 bytes little-endian size of the header, the header (JSON, padded by spaces), the tensors.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if "__metadata__" not in header:
        return content
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + size :]
