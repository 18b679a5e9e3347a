"""Reads files that anybody may have made: regular ones, of a bounded size and depth, with numbers that fit a computer.

Every reader asks here before a library sees the file: a FIFO would be waited for and /dev/zero read without end, a deep
list ends Python's parser, and 40 bytes of JSON hold a number that no float can. All raise DataError.
"""

import json
import lzma
import math
import mmap
import os
import re
import stat
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgegen.errors import DataError

# Bytes. A text becomes Python objects of some 20 times its size: "[]," is three bytes, and a list has 56.
LARGEST_TEXT = 1 << 25
LARGEST_PROTOBUF = (1 << 31) - 1  # what protobuf reads at most
SHOWN = 20  # characters of a number in a message
SURROGATE, SURROGATE_BYTES = re.compile(r"\\u[dD][89a-fA-F]"), re.compile(rb"\\u[dD][89a-fA-F]")
DEEPEST = 100  # tables in tables; those of torch.export have some 20, and Python's own limit is 1,000 calls
WHOLE_LIMIT = 1 << 64  # no whole number of a file is this large: they are sizes and counts
MOST_FILES, DEEPEST_FOLDER = 2_000_000, 8  # in a folder of images, or of a network
LARGEST_IMAGE = 64 << 20  # a 4096x4096 RGB .bmp is 48 MiB
# What zipfile raises on archives that are damaged, cut short, protected or packed in a way that it does not know.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
)
AGAIN = "make it again, or copy it again if it came from elsewhere"
Content = bytes | mmap.mmap
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}


@contextmanager
def opened(path: Path, *, largest: int | None = None) -> Iterator[IO[bytes]]:
    """The file, open for reading. Raises DataError where it is missing, no regular file or larger than `largest`."""
    check_regular(path, largest=largest)
    with read_errors(path), path.open("rb") as file:
        yield file


def check_regular(path: Path, *, largest: int | None = None) -> None:
    """Before a library opens the file by its name. Raises DataError as `opened` does."""
    with read_errors(path):
        try:
            status = path.stat()
        except ValueError as e:
            raise DataError(f"{str(path)!r}: no name of a file ({e})") from e
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in KINDS.items() if is_kind(status.st_mode)), "something else")
        raise DataError(f"{path}: is {kind}; needed: a file")
    if largest is not None and status.st_size > largest:
        raise DataError(f"{path} has {status.st_size} bytes; at most {largest} are read")


def read_bytes(path: Path, *, largest: int = LARGEST_TEXT) -> bytes:
    """The content of a file. Raises DataError as `opened` does."""
    with opened(path, largest=largest) as file:
        return file.read(largest)  # a file of /proc says that it has no bytes


def read_text(path: Path, *, largest: int = LARGEST_TEXT) -> str:
    """The content of a UTF-8 file. Raises DataError."""
    try:
        return read_bytes(path, largest=largest).decode("utf-8")
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not a text in UTF-8 ({e.reason} at byte {e.start}); {AGAIN}") from e


def mapped(path: Path) -> Content:
    """The content of a file of any size, of which only what is looked at is read. Raises DataError."""
    with opened(path) as file:
        is_empty = os.fstat(file.fileno()).st_size == 0  # which cannot be mapped
        return b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def parse_json(content: bytes | str, *, where: str, infinities: bool = False, unique_keys: bool = False) -> Any:
    """JSON whose numbers are finite and below 2^64 and that is no deeper than DEEPEST. Raises DataError.

    `infinities` admits the words Infinity and -Infinity, which diffusers writes into settings of schedulers;
    `unique_keys` refuses an object that has a key twice, of which readers take different ones.
    """
    words = {"Infinity": float("inf"), "-Infinity": float("-inf")} if infinities else {}

    def constant(word: str) -> float:
        if word not in words:
            raise ValueError(f"{word} is no number of JSON")
        return words[word]

    try:
        values = json.loads(
            content,
            parse_constant=constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_unique if unique_keys else None,
        )
    except RecursionError as e:
        raise _too_deep(where) from e
    except ValueError as e:  # base class of JSONDecodeError and UnicodeDecodeError
        raise DataError(f"{where}: not JSON, or cut short ({e}); {AGAIN}") from e
    check_depth(values, where=where)
    _check_surrogates(content, values, where)
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, no deeper than DEEPEST. Raises DataError."""
    text = read_text(path)
    try:
        values = tomllib.loads(text)
    except RecursionError as e:
        raise _too_deep(str(path)) from e
    except ValueError as e:
        raise DataError(f"{path}: not TOML: {e}") from e
    check_depth(values, where=str(path))
    return values


def check_depth(values: Any, *, where: str) -> None:
    """Raises DataError for lists and tables in each other that are deeper than DEEPEST."""
    level = [values] if isinstance(values, dict | list) else []
    for _ in range(DEEPEST):
        inner = (part for each in level for part in (each.values() if isinstance(each, dict) else each))
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return
    raise _too_deep(where)


def user_path(text: str, *, base: Path = Path()) -> Path:
    """What a user's text names, relative to `base`, "~" as the shell understands it. Raises DataError."""
    if "\0" in text:
        raise DataError(f"{text!r}: no file has a NUL in its name")
    try:
        return base / Path(text).expanduser()
    except RuntimeError as e:  # the user of "~user" is not known, or has no home
        raise DataError(f"{text}: {e}; write the whole path") from e


@dataclass(frozen=True)
class Tree:
    """The files and folders below a folder, sorted; each folder once, through whichever link it was met first.

    `links`: (link, folder that it leads to) of the links to folders that are in `folders`, or above it, already. Two
    links to a folder that they lie in would have no end.
    """

    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    links: tuple[tuple[Path, Path], ...]


def tree(root: Path, *, skip: Callable[[str], bool] = lambda name: False) -> Tree:
    """All below `root`, links followed, no deeper than DEEPEST_FOLDER, without the names that `skip` leaves out.

    Raises DataError for a name that is not UTF-8, which no JSON file holds, for more than MOST_FILES files, and for the
    root of the file system.
    """
    if root.resolve() == Path(root.resolve().anchor):  # it has devices and processes as files, and would take minutes
        raise DataError(f"{root}: is the whole file system; give a folder in it")
    files: list[Path] = []
    folders: list[Path] = []
    links: list[tuple[Path, Path]] = []
    seen = {root.resolve()}
    for place, inner, names in os.walk(root, followlinks=True):
        kept = [name for name in sorted(inner) if not skip(name)]
        inner.clear()  # os.walk goes on with what is in it
        _check_names(place, (*kept, *names))
        files += [Path(place, name) for name in names if not skip(name)]
        if len(files) > MOST_FILES:
            raise DataError(f"{root}: more than {MOST_FILES:,} files; is it the folder that you mean?")
        if len(Path(place).parts) - len(root.parts) >= DEEPEST_FOLDER:
            continue
        for name in kept:
            folder = Path(place, name)
            real = folder.resolve()
            if real in seen:
                links.append((folder, real))
                continue
            seen.add(real)
            folders.append(folder)
            inner.append(name)
    return Tree(tuple(sorted(files)), tuple(sorted(folders)), tuple(sorted(links)))


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """For code that reads `path`: turns an OSError into a DataError."""
    try:
        yield
    except FileNotFoundError as e:
        raise DataError(f"no file {path}") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e


def _check_names(place: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not name.isascii() and "\\udc" in ascii(name):  # how Python holds a byte that is no UTF-8
            raise DataError(f"{place}: the name {name!a} is not UTF-8; rename it")


def _check_surrogates(content: bytes | str, values: Any, where: str) -> None:
    """Half of a pair of UTF-16, which JSON can escape, can neither be printed nor written."""
    if not (SURROGATE_BYTES.search(content) if isinstance(content, bytes) else SURROGATE.search(content)):
        return
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        raise DataError(f"{where}: has text that is not Unicode (half of a surrogate pair); {AGAIN}") from e


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key '{_short(key)}' is there twice")
        values[key] = value
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{_short(text)} is beyond what a number can hold")
    return value


def _whole(text: str) -> int:
    if len(text) > len(str(WHOLE_LIMIT)) + 1 or abs(value := int(text)) >= WHOLE_LIMIT:
        raise ValueError(f"{_short(text)} is beyond what a number can hold")
    return value


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def _too_deep(where: str) -> DataError:
    return DataError(f"{where}: lists or tables in each other, deeper than {DEEPEST}; {AGAIN}")
