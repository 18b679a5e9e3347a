"""The errors that edgegen raises on purpose; each carries the exit code of the command line.

    EdgegenError                1  failed
    ├── UsageError              2  a command line that cannot be carried out
    │   └── RecipeError         2  a recipe that cannot be read: unknown key, wrong type or range
    ├── DataError               2  images, weights or folders that are missing, corrupt or do not fit
    ├── MissingExtraError       3  an optional dependency is not installed; names the pip line
    ├── ParityError             4  an artifact does not compute what PyTorch computes
    ├── BudgetError             5  a size, latency or quality budget cannot be kept
    ├── DeviceError             6  a device vanished, refused or answered nonsense
    ├── StorageError            1  disk full, no write permission, folder in use
    ├── TrainingError           1  loss is not finite; the last good checkpoint is kept
    └── ExportError             1  a backend could not lower, quantize or open a file
        └── NoRuntimeError      1  nothing on this machine can run the file: it stays "not checked"

A message says what was found and what to do. Vendors' exceptions are turned into these at the seam, with `from e`.
"""

import difflib
from collections.abc import Iterable


class EdgegenError(Exception):
    """The base of all errors that edgegen raises on purpose.

    Attributes:
        exit_code: of the command line: 1 failed, 2 usage, recipe or data, 3 an extra is missing, 4 parity failed,
            5 over budget, 6 device failed.
    """

    exit_code = 1


class UsageError(EdgegenError):
    exit_code = 2


class RecipeError(UsageError):
    pass


class DataError(EdgegenError):
    exit_code = 2


class MissingExtraError(EdgegenError):
    exit_code = 3

    def __init__(self, package: str, *, extra: str, purpose: str, note: str = "") -> None:
        remedy = f"pip install 'edgegen[{extra}]'" + (f" ({note})" if note else "")
        super().__init__(f"{purpose} needs '{package}', which is not installed: {remedy}")


class ParityError(EdgegenError):
    exit_code = 4


class BudgetError(EdgegenError):
    exit_code = 5


class DeviceError(EdgegenError):
    exit_code = 6


class StorageError(EdgegenError):
    pass


class TrainingError(EdgegenError):
    pass


class ExportError(EdgegenError):
    pass


class NoRuntimeError(ExportError):
    pass


def unknown_name(kind: str, found: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a table, with the nearest one as a suggestion."""
    names = sorted(known)
    near = difflib.get_close_matches(found, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"no {kind} '{found}'; there are: {', '.join(names)}.{hint}"
