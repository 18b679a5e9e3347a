"""The kinds of values that the records of a bundle's manifest are made of."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

LETTER = r"[^/\\\x00-\x1f:*?\"<>|]"  # of a name, as the file systems of all platforms take it
PART = rf"{LETTER}*[^/\\\x00-\x1f:*?\"<>|.]{LETTER}*"  # a name that is not of dots alone
BundlePath = Annotated[
    str, Field(pattern=rf"^{PART}(/{PART})*$", description="of a file in the bundle, relative, with / between folders")
]
Size = Annotated[int, Field(ge=1)]
Shape = tuple[Size | Literal["batch_size"], ...]
Dtype = Literal["float32", "float16", "int64", "int32", "uint8"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Ms = Annotated[float, Field(gt=0, allow_inf_nan=False)]
WIDTHS = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "uint8": 1}  # bytes


def is_unset(value: object) -> bool:
    """Keys of what most bundles do not have are left out there."""
    return value is None or value == ()


def check_unique(names: Iterable[str], what: str) -> None:
    """Raises ValueError where a name is there twice; file systems differ in whether A and a are one name."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise ValueError(f"{what}: '{name}' is there twice")
        seen.add(name.casefold())
