"""Types of the recipe's keys."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Time = Annotated[float, Field(ge=0.0, le=1.0)]  # 0 is data, 1 is noise
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
LocalPath = Annotated[str, Field(min_length=1)]  # relative to the recipe
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
