"""What documented JSON files are made of: frozen records, in which an unknown key is an error."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Utc = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class Record(BaseModel):
    """A part of such a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def utc_now() -> str:
    """The time as documents carry it: 2026-11-23T06:15:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
