"""Base of the documented JSON files: frozen records, in which an unknown key is an error."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from edgegen.support.storage import write_json

Count = Annotated[int, Field(ge=0)]
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$", description="a name, never a path")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Utc = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class Record(BaseModel):
    """A part of a documented file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Document(Record):
    """A whole documented file; its JSON Schema is committed as `schema_file`."""

    schema_file: ClassVar[Path]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the documented keys."""
        content: dict[str, Any] = json.loads(self.model_dump_json(by_alias=True))
        return content

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the file (draft 2020-12)."""
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        return {**dialect, **cls.model_json_schema(by_alias=True, mode="serialization")}

    @classmethod
    def update_schema_file(cls) -> None:
        """To be called after a change of the record."""
        write_json(cls.schema_file, cls.json_schema())


def utc_now() -> str:
    """The time as documents carry it: 2026-11-23T06:15:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
