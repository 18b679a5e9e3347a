"""A folder or .zip of images: one sub-folder per class, or none; `train/` and `test/` around that if there are both."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegen.data.images import ImageSet, LoadProgress, class_order, image_set, with_heldout
from edgegen.data.pixels import decode, pillow_warnings, stack
from edgegen.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OTHER_IMAGES = (".gif", ".tif", ".tiff", ".heic", ".avif", ".ppm", ".pgm", ".jp2", ".tga")
PARTS = {"train", "test"}
MAX_MEMBER = 64 << 20  # bytes that one file may unpack to: a 4096x4096 RGB .bmp is 48 MiB
MAX_DEPTH = 8  # folders in folders: a link may lead back up
LAYOUT = "needed: one sub-folder per class with the images in it, or all images beside each other"


@dataclass(frozen=True)
class Tree:
    """The names in a folder or zip, with "/" and relative to it, hidden ones left out; `read` gives a file's bytes."""

    where: str
    source: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[str], bytes]


def load(path: Path, *, progress: LoadProgress | None = None) -> ImageSet:
    """Reads all .png, .jpg, .jpeg, .webp and .bmp files, sorted by class and name; files of other kinds (text, tables)
    and hidden ones are left out. A zip is read in memory: nothing is unpacked to the disk. Raises DataError."""
    with _opened(path) as tree:
        return _load(tree, progress)


def image_names(path: Path) -> list[str]:
    """The image files of a folder or .zip, wherever in it they lie, sorted. Raises DataError."""
    with _opened(path) as tree:
        return _images(tree)


def read_images(path: Path, names: Iterable[str]) -> Iterator[NDArray[np.uint8]]:
    """Those image files of a folder or .zip as (height, width, 1 or 3); sizes may differ. Raises DataError."""
    with _opened(path) as tree, pillow_warnings():
        for name in names:
            yield decode(tree.read(name), f"{tree.where}: {name}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Tree]:
    if path.is_dir():
        yield _folder_tree(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield _zip_tree(path, archive)
    except (zipfile.BadZipFile, OSError) as e:
        raise DataError(f"{path}: not a zip file, or cut short ({e}); make it again, or copy it again") from e


def _load(tree: Tree, progress: LoadProgress | None) -> ImageSet:
    images = _images(tree)
    prefix = _wrapper(images)
    tops = {name[len(prefix) :].split("/")[0] for name in images}
    parts = sorted(PARTS, reverse=True) if tops == PARTS else [""]
    plan = [_classes(tree, images, f"{prefix}{part}/" if part else prefix) for part in parts]
    names = [name for part in plan for name, _ in part]
    with pillow_warnings():
        pixels = stack(
            names,
            lambda i: decode(tree.read(names[i]), f"{tree.where}: {names[i]}"),
            source=tree.where,
            progress=progress,
        )
    sets, start = [], 0
    for part in plan:
        labels = [label for _, label in part if label is not None]
        sets.append(image_set(pixels[start : start + len(part)], labels or None, source=tree.source))
        start += len(part)
    return with_heldout(sets[0], sets[1]) if len(sets) == 2 else sets[0]


def _images(tree: Tree) -> list[str]:
    """The image files of the tree. Raises DataError when there are none, or some of a kind that is not read."""
    other = [name for name in tree.files if name.lower().endswith(OTHER_IMAGES)]
    if other:
        raise DataError(
            f"{tree.where}: {other[0]} is of a kind that is not read; convert it to one of {', '.join(SUFFIXES)}"
        )
    images = sorted(name for name in tree.files if name.lower().endswith(SUFFIXES))
    if not images:
        files = ", ".join(sorted(tree.files)[:3]) or "no files at all"
        raise DataError(f"{tree.where}: no images ({', '.join(SUFFIXES)}); found {files}")
    return images


def _wrapper(images: list[str]) -> str:
    """The one folder around everything that many zips have, as "name/"; "" where there is none."""
    tops = {name.split("/")[0] for name in images}
    return f"{tops.pop()}/" if len(tops) == 1 and all(name.count("/") >= 2 for name in images) else ""


def _classes(tree: Tree, images: list[str], prefix: str) -> list[tuple[str, str | None]]:
    """(name, class or None) of the images below `prefix`, in order. Raises DataError on a layout of neither kind."""
    inner = [name for name in images if name.startswith(prefix)]
    depths = {name[len(prefix) :].count("/"): name for name in reversed(inner)}
    if depths.keys() == {0}:
        return [(name, None) for name in inner]
    if depths.keys() != {1}:
        examples = " and ".join(depths[depth] for depth in sorted(depths)[:2])
        raise DataError(f"{tree.where}: found {examples}; {LAYOUT}")
    label = {name: name[len(prefix) :].split("/")[0] for name in inner}
    below = [name[len(prefix) :] for name in (*tree.files, *(f"{f}/" for f in tree.folders)) if name.startswith(prefix)]
    empty = sorted({name.split("/")[0] for name in below if "/" in name} - set(label.values()))
    if empty:
        raise DataError(f"{tree.where}: class '{prefix}{empty[0]}' has no images; add some, or remove its folder")
    return [(name, label[name]) for name in sorted(inner, key=lambda name: (class_order(label[name]), name))]


def _folder_tree(path: Path) -> Tree:
    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError as e:
            raise DataError(f"{path / name}: cannot be read: {e.strerror}") from e

    files: list[str] = []
    folders: list[str] = []
    for place, inner, here in os.walk(path, followlinks=True):
        prefix = Path(place).relative_to(path)
        inner[:] = [] if len(prefix.parts) >= MAX_DEPTH else [name for name in inner if not _hidden(name)]
        folders += [(prefix / name).as_posix() for name in inner]
        files += [(prefix / name).as_posix() for name in here if not _hidden(name)]
    return Tree(str(path), path.resolve().name, tuple(files), tuple(folders), read)


def _zip_tree(path: Path, archive: zipfile.ZipFile) -> Tree:
    members: dict[str, zipfile.ZipInfo] = {}
    folders = []
    for info in archive.infolist():
        name = info.filename.replace("\\", "/").removeprefix("./")  # some Windows tools write their own separator
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(
                f"{path}: member '{info.filename}' points outside the zip; make it again from a clean folder"
            )
        if _hidden(name):
            continue
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        elif name in members:
            raise DataError(f"{path}: member '{name}' is there twice; make the zip again")
        else:
            members[name] = info

    def read(name: str) -> bytes:
        if members[name].file_size > MAX_MEMBER:
            size = members[name].file_size
            raise DataError(f"{path}: member '{name}' unpacks to {size} bytes; the limit of an image is {MAX_MEMBER}")
        try:
            return archive.read(members[name])
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as e:
            raise DataError(f"{path}: member '{name}' is corrupt ({e}); make the zip again, or copy it again") from e
        except RuntimeError as e:
            raise DataError(f"{path}: member '{name}' cannot be read ({e}); make the zip without a password") from e

    return Tree(str(path), path.name, tuple(members), tuple(folders), read)


def _hidden(name: str) -> bool:
    """Whether file managers made it: .DS_Store, __MACOSX/, .thumbnails/."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
