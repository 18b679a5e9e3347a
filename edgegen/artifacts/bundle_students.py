"""A bundle of several students: an artifact has a file of each, and each makes the images of its classes."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.bundle_artifact import beside, target_of
from edgegen.artifacts.golden import images_of
from edgegen.artifacts.router import by_class
from edgegen.formats.bundle_students import Student
from edgegen.formats.manifest import ManifestEntry, check_folder
from edgegen.formats.router import ROUTER, Route, read_router
from edgegen.support.storage import nbytes_of
from edgegen.types import Signature
from edgegen.verification.session_process import RemoteSession, SessionProcess


@dataclass(frozen=True)
class StudentParts:
    """The export of several students: `entries` are those of each route's folder, by target."""

    folder: Path
    routes: Sequence[Route]
    entries: Sequence[Mapping[str, ManifestEntry]]

    @classmethod
    def of(cls, folder: Path) -> "StudentParts | None":
        """None where `folder` has no router. Raises DataError where it, or a file, is not as it was written."""
        if not (folder / ROUTER).is_file():
            return None
        routes = read_router(folder)
        entries = [{str(target_of(each)): each for each in check_folder(folder / route.folder)} for route in routes]
        return cls(folder, routes, entries)

    def of_all(self) -> list[ManifestEntry]:
        """For each target that all students have, the entry of the first, with the size of all and the worst parity."""
        joined = []
        for target, first in self.entries[0].items():
            if all(target in entries for entries in self.entries):
                rows = [entries[target].row for entries in self.entries]
                row = {**first.row, "nbytes": sum(row["nbytes"] for row in rows), "parity": _worst(rows)}
                joined.append(replace(first, row=row))
        return joined

    def copy(self, entry: ManifestEntry, folder: Path) -> tuple[Student, ...]:
        """Copies the files of all students of an entry of `of_all` into `folder`."""
        students = []
        for route, entries in zip(self.routes, self.entries, strict=True):
            own = entries[str(target_of(entry))]
            copy_files(self.folder / route.folder, own, folder)
            students.append(
                Student(
                    file=own.row["file"],
                    classes=route.classes,
                    nbytes=sum(nbytes_of(folder / name) for name in (own.row["file"], *beside(own))),
                    sha256=own.row["sha256"],
                    beside=beside(own),
                )
            )
        return tuple(students)


def copy_files(files: Path, entry: ManifestEntry, folder: Path) -> None:
    """Copies the artifact of an entry, and what belongs beside it, from the folder `files`."""
    for name in (entry.row["file"], *beside(entry)):
        if (files / name).is_dir():
            shutil.copytree(files / name, folder / name)
        else:
            shutil.copyfile(files / name, folder / name)


def run_artifact(
    process: SessionProcess,
    path: Path,
    runtime: str,
    students: Sequence[Student],
    inputs: Mapping[str, NDArray[Any]],
    signature: Signature,
) -> tuple[NDArray[np.uint8], RemoteSession]:
    """The images of all inputs by the artifact `path`, or by its `students`, each of its classes; and the last session.

    Raises ExportError where a file is refused, NoRuntimeError and MissingExtraError where nothing here runs it.
    """
    session = process.open(runtime, path)
    if not students:
        return images_of(session, inputs, signature), session

    def run(number: int, own: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
        return images_of(process.open(runtime, path.with_name(students[number].file)), own, signature)

    label = next(spec.name for spec in signature.inputs if spec.role == "class")
    return by_class(inputs, inputs[label], [student.classes for student in students], run), session


def _worst(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The parity of the student that failed, else of one that was not checked, else of the least PSNR."""

    def rank(row: Mapping[str, Any]) -> tuple[int, float]:
        parity = row.get("parity", {})
        psnr_db = parity.get("psnr_db")
        order = {"failed": 0, "ok": 2}
        return order.get(str(parity.get("status")), 1), float("inf") if psnr_db is None else psnr_db

    worst: Mapping[str, Any] = min(rows, key=rank).get("parity", {})
    return worst
