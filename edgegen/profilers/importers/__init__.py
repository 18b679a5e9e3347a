"""Measurements taken elsewhere, each format by a module of its own: `read` finds the one that a file is of.

An importer keeps a source's figures under the source's own names: a mean stays a mean, and what is missing is None.
The files are not trusted: they are bounded in size, nothing in them is run or unpickled, and one that cannot be read is
a DataError.
"""

from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from edgegen import registry
from edgegen.errors import DataError
from edgegen.profilers.measurement import Measurement
from edgegen.support.storage import read_bytes

LARGEST = 1 << 28  # bytes: a trace of a large network has some ten million


class Importer(Protocol):
    """Add one by a module in this folder and a registry line.

    `source` is the name that its figures are shown under, `form` what such a file is, in words.
    """

    @property
    def source(self) -> str: ...

    @property
    def form(self) -> str: ...

    def fits(self, path: Path, content: bytes) -> bool:
        """Whether the file seems to be of this format; cheap."""

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        """Its measurements, at least one. Raises ValueError for a file that is damaged, or has none."""


def read(path: Path) -> tuple[Measurement, ...]:
    """The measurements in a file of any known format. Raises DataError; MissingExtraError where a package is needed."""
    content = read_bytes(path, largest=LARGEST)
    if not content.strip():
        raise DataError(f"{path} is empty")
    importers: list[Importer] = [registry.load("importer", name) for name in registry.names("importer")]
    fitting = next((importer for importer in importers if importer.fits(path, content)), None)
    if fitting is None:
        known = "; ".join(importer.form for importer in importers)
        raise DataError(f"{path} is no measurement that edgegen reads: {known}")
    try:
        measurements = fitting.read(path, content)
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} looks like {fitting.form}, but {place}: {first['msg']}") from e
    except RecursionError as e:
        raise DataError(f"{path} looks like {fitting.form}, but is nested too deeply") from e
    except ValueError as e:
        raise DataError(f"{path} looks like {fitting.form}, but: {e}") from e
    assert measurements, "an importer without measurements raises"
    return measurements
