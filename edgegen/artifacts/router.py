"""Several students as one: each image is made by the files of its class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.sessions import ImageSource
from edgegen.artifacts.shipped import artifact_in
from edgegen.formats.bundle_folder import is_bundle, read_bundle
from edgegen.formats.router import ROUTER, Route, read_router

Arrays = Mapping[str, NDArray[Any]]


def routes_in(folder: Path) -> list[Route]:
    """The students in an export folder or a bundle, by folder or file; none where one network makes all images.

    Raises DataError.
    """
    if (folder / ROUTER).is_file():
        return read_router(folder)
    if not folder.is_dir() or not is_bundle(folder):
        return []
    bundle, file = read_bundle(folder), artifact_in(folder).name
    students = [row.students for row in bundle.artifacts if any(each.file == file for each in row.students)]
    return [Route(student.file, student.classes) for student in students[0]] if students else []


def by_class(
    inputs: Arrays, labels: NDArray[Any], served: Sequence[Sequence[int]], run: Callable[[int, Arrays], NDArray[Any]]
) -> NDArray[Any]:
    """The images of all samples: those of the classes `served[number]` are made by `run(number, their inputs)`."""
    owner = {label: number for number, classes in enumerate(served) for label in classes}
    owners = np.array([owner[int(label)] for label in labels])
    made: dict[int, NDArray[Any]] = {}
    for number in range(len(served)):
        rows = np.flatnonzero(owners == number)
        if len(rows):
            own = {name: values[rows] if values.ndim else values for name, values in inputs.items()}
            made |= dict(zip(rows.tolist(), run(number, own), strict=True))
    return np.stack([made[row] for row in range(len(owners))])


def routed(place: Path, routes: Sequence[Route], sources: Sequence[ImageSource]) -> ImageSource:
    """One source of all classes."""

    def run(inputs: Arrays) -> NDArray[Any]:
        served = [route.classes for route in routes]
        return by_class(inputs, inputs["class_labels"], served, lambda number, own: sources[number].run(own))

    first = sources[0]
    method = f"{first.method}, {len(sources)} students by class"
    return replace(first, run=run, method=method, place=place)
