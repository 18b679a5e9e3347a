"""A bundle as one .zip: its files uncompressed, in order, without times: the same bundle gives the same bytes."""

import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter, ValidationError

from edgegen.errors import DataError
from edgegen.formats.bundle import REMEDY
from edgegen.formats.bundle_folder import files_in
from edgegen.formats.bundle_types import BundlePath
from edgegen.support.bounded_files import ZIP_ERRORS, check_regular
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import atomic_path, storage_errors

SUFFIX = ".zip"
FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of the format's calendar
REGULAR = (stat.S_IFREG | 0o644) << 16  # in a zip made on Unix
PATH: TypeAdapter[str] = TypeAdapter(BundlePath)


def write_zip(folder: Path, path: Path) -> None:
    """Writes the bundle `folder` as `path`. Raises StorageError."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in files_in(folder):
            info = zipfile.ZipInfo(name, FIRST_DAY)
            info.create_system, info.external_attr = 3, REGULAR  # 3: Unix, whatever system this is
            info.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A bundle's zip as a folder, for the length of a block; what is in the folder has not been checked.

    A DataError of the block names the zip in place of the folder. Raises DataError for a file that is no zip, or cut
    short, and for an entry that does not belong into a bundle.
    """
    check_regular(path)
    with temporary_folder() as temporary:
        folder = Path(temporary) / path.stem
        try:
            with zipfile.ZipFile(path) as archive:
                _check_entries(path, archive.infolist())
                for info in archive.infolist():
                    target = folder / info.filename
                    with storage_errors(target):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with archive.open(info) as source, target.open("xb") as file:
                            shutil.copyfileobj(source, file)
        except ZIP_ERRORS as e:
            raise DataError(f"{path}: not a zip, or damaged ({e}); {REMEDY}") from e
        try:
            yield folder
        except DataError as e:  # what is unpacked has no name that a user knows
            raise DataError(str(e).replace(str(folder), str(path))) from e


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raises DataError for a name that is there twice or leads elsewhere, for a link, and for compressed content."""
    seen: set[str] = set()
    for info in entries:
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if name.casefold() in seen:
            raise DataError(f"{path}: '{name}' is there twice; {REMEDY}")
        seen.add(name.casefold())
        try:
            PATH.validate_python(name)
        except ValidationError as e:
            raise DataError(f"{path}: has {name!r}, which is no path of a file in a bundle; {REMEDY}") from e
        if kind not in (0, stat.S_IFREG):
            raise DataError(f"{path}: {name} is a link or something else that is no file; {REMEDY}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise DataError(f"{path}: {name} is compressed: made by another program; unpack it, and verify the folder")
    for name in seen:
        if any(str(parent) in seen for parent in PurePosixPath(name).parents):
            raise DataError(f"{path}: {name} lies in what is a file as well; {REMEDY}")
    if sum(info.file_size for info in entries) > path.stat().st_size:
        raise DataError(f"{path}: is smaller than what it says is in it; {REMEDY}")
