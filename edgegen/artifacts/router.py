"""router.json: in the export folder of several students, which sub-folder's files serve which classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.sessions import ImageSource
from edgegen.errors import DataError
from edgegen.support.storage import read_json, write_json

ROUTER, SCHEMA = "router.json", "edgegen.router/1"


@dataclass(frozen=True)
class Route:
    """A folder of files, relative to the router's, and the classes that they serve."""

    folder: str
    classes: tuple[int, ...]


def write_router(folder: Path, routes: Sequence[Route]) -> None:
    rows = [{"folder": route.folder, "classes": list(route.classes)} for route in routes]
    write_json(folder / ROUTER, {"schema": SCHEMA, "routes": rows})


def read_router(folder: Path) -> list[Route]:
    """Raises DataError for a router that was not written by `write_router`, or that leads outside of its folder."""
    try:
        rows = read_json(folder / ROUTER)["routes"]
        routes = [Route(str(row["folder"]), tuple(int(number) for number in row["classes"])) for row in rows]
        served = [number for route in routes for number in route.classes]
        if sorted(served) != list(range(len(served))) or not served:
            raise ValueError(f"the classes are {served}, and not each of 0, 1, ... once")
        for route in routes:
            if Path(route.folder).name != route.folder or not (folder / route.folder).is_dir():
                raise ValueError(f"no folder '{route.folder}' beside it")
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"{folder / ROUTER}: not a router of edgegen's ({e}); export the students again") from e
    return routes


def routed(place: Path, routes: Sequence[Route], sources: Sequence[ImageSource]) -> ImageSource:
    """One source of all classes: each image is made by the source whose route has its class."""
    owner = {number: index for index, route in enumerate(routes) for number in route.classes}

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        owners = np.array([owner[int(label)] for label in inputs["class_labels"]])
        made: dict[int, NDArray[Any]] = {}
        for index, source in enumerate(sources):
            rows = np.flatnonzero(owners == index)
            if len(rows):
                images = source.run({name: values[rows] for name, values in inputs.items()})
                made |= dict(zip(rows.tolist(), images, strict=True))
        return np.stack([made[row] for row in range(len(owners))])

    first = sources[0]
    method = f"{first.method}, {len(sources)} students by class"
    return replace(first, run=run, method=method, place=place)
