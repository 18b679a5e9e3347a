"""router.json: in the export folder of several students, which sub-folder's files serve which classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgegen.errors import DataError
from edgegen.support.storage import read_json, write_json

ROUTER, SCHEMA = "router.json", "edgegen.router/1"


@dataclass(frozen=True)
class Route:
    """A folder of files, or of a bundle a file, relative to the router's, and the classes that it serves."""

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
