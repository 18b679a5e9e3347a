"""text.json in the export folder of a text pipeline: which of its folders encodes text, which makes images of it.

OUT/text.json             generator, encoder and tokenizer
OUT/tokenizer.json        of the library tokenizers
OUT/<generator>/          files from noise and hidden states to an image, with manifest.json
OUT/<encoder>/            files from token numbers to hidden states, with manifest.json
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from edgegen.errors import DataError
from edgegen.formats.bundle_text import TOKENIZER, Tokenizer
from edgegen.formats.file_hashes import FileHashes
from edgegen.support.schema import FileName, Record, Sha256
from edgegen.support.storage import read_json, write_json

TEXT = "text.json"
SCHEMA: Literal["edgegen.text/1"] = "edgegen.text/1"
REMEDY = "export the pipeline again"


class TextPipeline(Record):
    """The parts of a text pipeline; `generator` and `encoder` are folders beside text.json."""

    schema_: Literal["edgegen.text/1"] = Field(SCHEMA, alias="schema")
    generator: FileName
    encoder: FileName
    input: str = Field(description="of the generator, what the encoder's output goes to")
    tokenizer: Tokenizer
    tokenizer_sha256: Sha256


def write_text_pipeline(folder: Path, pipeline: TextPipeline) -> None:
    """Raises StorageError."""
    write_json(folder / TEXT, pipeline.model_dump(mode="json", by_alias=True))


def read_text_pipeline(folder: Path) -> TextPipeline | None:
    """None where `folder` has no text.json. Raises DataError where it is damaged, or the tokenizer is another."""
    path = folder / TEXT
    if not path.is_file():
        return None
    try:
        pipeline = TextPipeline.model_validate_json(json.dumps(read_json(path)), strict=True)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {key}{': ' if key else ''}{first['msg']}; {REMEDY}") from e
    FileHashes().check(folder / TOKENIZER, pipeline.tokenizer_sha256, record=path, remedy=REMEDY)
    return pipeline
