"""The part of a bundle's manifest that says which of several files makes the images of a class."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field

from edgegen.formats.bundle_types import Size
from edgegen.support.schema import Count, FileName, Record, Sha256


class Student(Record):
    """One of several files of an artifact, for some of the classes; `sha256`, `nbytes`, `beside` as of an artifact."""

    file: FileName
    classes: Annotated[tuple[Count, ...], Field(min_length=1, description="that it makes images of")]
    nbytes: Size
    sha256: Sha256
    beside: tuple[FileName, ...] = ()

    def holds(self, path: str) -> bool:
        """Whether `path` is this file, lies in it, or belongs beside it."""
        return PurePosixPath(path).parts[0] in (self.file, *self.beside)


def check_students(students: Sequence[Student], *, classes: int) -> None:
    """Raises ValueError where one of the `classes` has no student, or two."""
    served = sorted(number for student in students for number in student.classes)
    if served != list(range(classes)):
        raise ValueError(f"{students[0].file}: its students are for the classes {served}; there are {classes} classes")
