"""The kinds of values that the records of a bundle's manifest are made of."""

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
