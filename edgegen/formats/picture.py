"""What made a picture, in a text chunk of its PNG: the artifact by its hash, seed, class. Read without decoding pixels.

The chunk (tEXt, iTXt or zTXt) has the keyword "edgegen" and JSON as text: the documented schema "edgegen.picture/1".
Format: PNG specification (3rd edition), https://www.w3.org/TR/png-3/, sections 5.3 and 11.3.3.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field, ValidationError

from edgegen.errors import DataError
from edgegen.formats.bundle_text import LONGEST_PROMPT
from edgegen.support.bounded_files import opened, parse_json
from edgegen.support.schema import Record, Sha256

SCHEMA: Literal["edgegen.picture/1"] = "edgegen.picture/1"
KEYWORD = "edgegen"
SUFFIX = ".png"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"iTXt", b"zTXt")
LARGEST = 1 << 16  # bytes of our chunk, packed and unpacked: one that edgegen writes has some 300
LARGEST_CHUNK = (1 << 31) - 1  # of PNG
HEAD = 80  # bytes of a chunk that hold its keyword, which has at most 79


class PictureRecipe(Record):
    """What a picture, or a file of signals, was made by; of a grid of several images, all of them."""

    schema_: Literal["edgegen.picture/1"] = Field(SCHEMA, alias="schema")
    edgegen: Annotated[str, Field(max_length=100)] = Field(description="version of what wrote it")
    artifact: Sha256 = Field(description="of the exported file, or of the generator folder that PyTorch ran")
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    label: Annotated[int, Field(ge=0, lt=1 << 31)] | None = Field(
        None, description="class of all images; null: none, or the classes 0, 1, 2, ... in turn"
    )
    count: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="images or signals: 0, 1, 2, ... of the seed")
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="of a generator folder's solver")
    best_of: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="candidates for each image that is shown")
    prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)] | None = Field(
        None, exclude_if=lambda prompt: prompt is None, description="text that it was made from"
    )
    inputs: dict[str, Sha256] = Field(default={}, description="files that were given, by the input's name")

    def text(self) -> str:
        """The JSON of the chunk, in ASCII."""
        return json.dumps(self.model_dump(mode="json", by_alias=True))


def read_recipe(path: Path) -> PictureRecipe:
    """The recipe of a picture.

    Raises DataError for a file that is no whole PNG, for a picture without a recipe, and for a chunk that is too large,
    there twice, damaged, or no recipe.
    """
    with opened(path) as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise DataError(f"{path}: is no PNG")
        texts = [*_texts(file, path)]
    if not texts:
        raise DataError(f"{path}: carries no recipe: edgegen did not make it, or another program took the recipe out")
    if len(texts) > 1:
        raise DataError(f"{path}: carries {len(texts)} recipes; a picture has one")
    return recipe_of_text(texts[0], path)


def recipe_of_text(text: bytes, path: Path) -> PictureRecipe:
    """The recipe in the JSON that a file carries. Raises DataError."""
    where = f"{path}: its recipe"
    content = parse_json(text, where=where, unique_keys=True)
    try:
        return PictureRecipe.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{where} cannot be read: {key}{': ' if key else ''}{first['msg']}") from e


def _texts(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """The texts of the chunks with our keyword; the other chunks are not read. Raises DataError."""
    size = os.fstat(file.fileno()).st_size
    while True:
        head = file.read(8)
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        if not kind or file.tell() + length + 4 > size:
            raise DataError(f"{path}: is cut short: it ends inside of a chunk; copy it again")
        if kind == b"IEND":
            return
        start = file.tell()
        if kind in TEXTS and file.read(min(length, HEAD)).partition(b"\0")[0] == KEYWORD.encode():
            if length > LARGEST:
                raise DataError(f"{path}: its recipe has {length:,} bytes; at most {LARGEST:,} are read")
            file.seek(start)
            content, checksum = file.read(length), file.read(4)
            if struct.pack(">I", zlib.crc32(kind + content)) != checksum:
                raise DataError(f"{path}: its recipe is damaged: the checksum does not fit; copy it again")
            yield _text(kind, content.partition(b"\0")[2], path)
        file.seek(start + length + 4)


def _text(kind: bytes, content: bytes, path: Path) -> bytes:
    """What follows the keyword, without what the kind of chunk puts before it. Raises DataError."""
    if kind == b"tEXt":
        return content
    if kind == b"zTXt":
        return _unpacked(content[1:], path)
    # iTXt: whether it is packed and how (a byte each), language and translated keyword (ended by NUL), the text
    text = content[2:].split(b"\0", 2)[-1]
    return _unpacked(text, path) if content[:1] == b"\1" else text


def _unpacked(content: bytes, path: Path) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(content, LARGEST)
    except zlib.error as e:
        raise DataError(f"{path}: its recipe is damaged ({e}); copy it again") from e
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise DataError(f"{path}: its recipe is cut short, or has more than {LARGEST:,} bytes")
    return text
