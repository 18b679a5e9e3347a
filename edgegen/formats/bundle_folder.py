"""The folder of an app bundle: written with hashes of everything, refused by name where anything is not as written.

BUNDLE/manifest.json           all that an app needs ("edgegen.bundle/1", see `bundle`), with the SHA-256 of every file
BUNDLE/manifest.json.sha256    that of the manifest, as sha256sum writes it: what an update over the air compares
BUNDLE/README.md               model card
BUNDLE/<artifact>              exported files
BUNDLE/golden/                 what the files must give
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from edgegen.errors import DataError
from edgegen.formats.bundle import REMEDY, Bundle, BundledFile, bundle_of, is_of_bundle
from edgegen.formats.file_hashes import SHOWN
from edgegen.formats.manifest import MANIFEST
from edgegen.support.bounded_files import check_regular, parse_json, read_bytes, read_errors
from edgegen.support.storage import sha256_of, write_bytes

CARD, GOLDEN = "README.md", "golden"
HASH = f"{MANIFEST}.sha256"
HASH_LINE = re.compile(rb"([0-9a-f]{64})  manifest\.json\n")
LARGEST_HASH = 1 << 10  # bytes read of its file
OF_TOOLS = (".git", ".gitattributes", ".cache")  # what git and the Hugging Face hub add at the top of a folder


def is_bundle(folder: Path) -> bool:
    """Whether a folder is meant to be a bundle; it may be damaged."""
    if (folder / HASH).is_file():
        return True
    try:
        content = parse_json(read_bytes(folder / MANIFEST), where=MANIFEST)
    except DataError:
        return False
    return is_of_bundle(content)


def facts_of(folder: Path) -> tuple[BundledFile, ...]:
    """Size and hash of every file below `folder` but the manifest's two, sorted by path. Raises DataError."""
    rows = []
    for path in files_in(folder):
        if path not in (MANIFEST, HASH):
            place = folder / path
            rows.append(BundledFile(path=path, nbytes=place.stat().st_size, sha256=sha256_of(place)))
    return tuple(rows)


def write_bundle_manifest(folder: Path, bundle: Bundle) -> None:
    """The manifest and its hash, after everything else. Raises StorageError."""
    text = json.dumps(bundle.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(folder / MANIFEST, text.encode())
    write_bytes(folder / HASH, f"{hashlib.sha256(text.encode()).hexdigest()}  {MANIFEST}\n".encode())


def read_bundle(folder: Path) -> Bundle:
    """The manifest of a bundle, after it was compared with its hash; the other files are not looked at.

    Raises DataError for one that is missing, damaged, edited, of another version or inconsistent.
    """
    content = _read(folder, MANIFEST)
    line = HASH_LINE.fullmatch(_read(folder, HASH, largest=LARGEST_HASH))
    if line is None:
        raise DataError(f"{folder / HASH}: is not one line of sha256sum for {MANIFEST}; {REMEDY}")
    actual = hashlib.sha256(content).hexdigest()
    if actual != line[1].decode():
        raise DataError(
            f"{folder / MANIFEST}: was changed: its SHA-256 is {actual[:SHOWN]}..., {folder / HASH} says "
            f"{line[1].decode()[:SHOWN]}...; {REMEDY}"
        )
    where = str(folder / MANIFEST)
    return bundle_of(parse_json(content, where=where, unique_keys=True), where=where)


def check_bundle(folder: Path) -> Bundle:
    """The manifest of a bundle, after every file in the folder was compared with it.

    Raises DataError that names every file that is missing, foreign, a link, or does not hold what was written.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no bundle is there; give a folder or .zip that `edgegen bundle` wrote")
    bundle = read_bundle(folder)
    faults = [*_faults(folder, bundle)]
    if faults:
        if len(faults) == 1:
            raise DataError(f"{faults[0]}; {REMEDY}")
        raise DataError("\n  ".join([f"{folder}: not as written:", *faults, REMEDY]))
    return bundle


def _faults(folder: Path, bundle: Bundle) -> Iterator[str]:
    listed = {file.path: file for file in bundle.files}
    there = set(files_in(folder)) - {MANIFEST, HASH}
    for path in sorted(there | listed.keys()):
        place = folder / path
        if path not in listed:
            yield f"{place}: is not in {MANIFEST}"
        elif path not in there:
            yield f"{place}: is missing"
        elif place.stat().st_size != listed[path].nbytes:
            yield f"{place}: has {place.stat().st_size} bytes, {MANIFEST} says {listed[path].nbytes}"
        elif (actual := sha256_of(place)) != listed[path].sha256:
            yield (
                f"{place}: does not hold what was written there: its SHA-256 is {actual[:SHOWN]}..., {MANIFEST} says "
                f"{listed[path].sha256[:SHOWN]}..."
            )
    hashes = {file.file: file.sha256 for row in bundle.artifacts for file in (row.students or (row,))}
    for name, sha256 in hashes.items():
        place = folder / name
        if place.is_dir() and sha256_of(place) != sha256:
            yield f"{place}: its SHA-256 as a folder is another than its artifact's in {MANIFEST}"


def files_in(folder: Path) -> list[str]:
    """The files below a folder, sorted, by "/"-separated path. Raises DataError for what is neither file nor folder."""
    paths: list[str] = []
    with read_errors(folder):
        for place, inner, names in os.walk(folder, onerror=_raise):
            if Path(place) == folder:
                inner[:] = [name for name in inner if name not in OF_TOOLS]
                names = [name for name in names if name not in OF_TOOLS]
            for name in (*inner, *names):
                path = Path(place, name)
                if path.is_symlink():
                    raise DataError(f"{path}: is a symbolic link, and a bundle has none; {REMEDY}")
            for name in names:
                check_regular(Path(place, name))
                paths.append(Path(place, name).relative_to(folder).as_posix())
    return sorted(paths)


def _raise(error: OSError) -> None:
    raise error


def _read(folder: Path, name: str, **limits: int) -> bytes:
    path = folder / name
    if path.is_symlink():
        raise DataError(f"{path}: is a symbolic link, and a bundle has none; {REMEDY}")
    if not path.exists():
        raise DataError(f"{path}: is missing; {REMEDY}")
    return read_bytes(path, **limits)
