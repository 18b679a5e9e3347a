"""Base of the documented JSON files: frozen records, in which an unknown key is an error."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Utc = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class Record(BaseModel):
    """A part of a documented file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
