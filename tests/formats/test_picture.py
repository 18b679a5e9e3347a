"""The recipe in a PNG: read by chunk, refused where it is hostile."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edgegen.errors import DataError
from edgegen.formats.picture import KEYWORD, LARGEST, SIGNATURE, PictureRecipe, read_recipe

RECIPE = PictureRecipe(edgegen="0.1.0", artifact="ab" * 32, seed=(1 << 63) - 1, label=7, count=16)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def text(content: bytes, keyword: bytes = KEYWORD.encode()) -> bytes:
    return chunk(b"tEXt", keyword + b"\0" + content)


def png(*chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return SIGNATURE + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_recipe(path)
    assert len(str(refused.value)) < 1000
    return str(refused.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.png"


@pytest.mark.parametrize("way", ["tEXt", "iTXt", "iTXt packed", "zTXt"])
def test_what_any_program_wrote_is_read(path: Path, way: str) -> None:
    """By Pillow, an independent writer: other programs change the kind of chunk when they save a picture."""
    chunks = PngInfo()
    if way.startswith("iTXt"):
        chunks.add_itxt(KEYWORD, RECIPE.text(), lang="en", tkey="recipe", zip=way == "iTXt packed")
    else:
        chunks.add_text(KEYWORD, RECIPE.text(), zip=way == "zTXt")
    chunks.add_text("Comment", "of another")
    Image.new("RGB", (3, 2)).save(path, pnginfo=chunks)
    assert read_recipe(path) == RECIPE


def test_a_chunk_behind_the_pixels_is_found(path: Path) -> None:
    content = png()
    path.write_bytes(content[:-12] + text(RECIPE.text().encode()) + content[-12:])
    assert read_recipe(path) == RECIPE


def test_no_recipe_is_said(path: Path) -> None:
    assert "x.png: carries no recipe: edgegen did not make it" in refusal(path, png(text(b"{}", b"Comment")))
    assert "carries no recipe" in refusal(path, png(text(b"{}", b"edgegen2")))


def without(key: str) -> bytes:
    return json.dumps({name: value for name, value in json.loads(RECIPE.text()).items() if name != key}).encode()


def with_(**values: object) -> bytes:
    return json.dumps({**json.loads(RECIPE.text()), **values}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(text(b"not json")), "its recipe: not JSON"),
        (png(text(b"\xff\xfe")), "its recipe: not JSON"),
        (png(text(b"[" * 5000)), "deeper than"),
        (png(text(b"[]")), "cannot be read: Input should be an object"),
        (png(text(b"null")), "cannot be read: Input should be an object"),
        (png(text(with_(seed="5"))), "seed: Input should be a valid integer"),
        (png(text(with_(seed=-1))), "seed: Input should be greater than or equal to 0"),
        (png(text(with_(seed=1.5))), "seed: Input should be a valid integer"),
        (png(text(with_(count=10**9))), "count: Input should be less than or equal to 4096"),
        (png(text(b'{"seed": 1e999}')), "beyond what a number can hold"),
        (png(text(with_(artifact="../../x"))), "artifact: String should match pattern"),
        (png(text(with_(schema="edgegen.picture/2"))), "schema: Input should be 'edgegen.picture/1'"),
        (png(text(with_(run="rm -r"))), "run: Extra inputs are not permitted"),
        (png(text(without("artifact"))), "artifact: Field required"),
        (png(text(b'{"seed": 1, "seed": 2}')), "the key 'seed' is there twice"),
        (png(text(RECIPE.text().encode()), text(RECIPE.text().encode())), "carries 2 recipes"),
        (png(text(b"x" * (LARGEST + 1))), "its recipe has 65,545 bytes; at most 65,536 are read"),
        (png(text(RECIPE.text().encode())[:-1] + b"?"), "the checksum does not fit"),
        (png(chunk(b"zTXt", b"edgegen\0\0" + zlib.compress(b"0" * 50_000_000))), "has more than 65,536 bytes"),
        (png(chunk(b"zTXt", b"edgegen\0\0rubbish")), "its recipe is damaged"),
        (png(chunk(b"iTXt", b"edgegen\0\1\0\0\0" + zlib.compress(b"{}")[:-3])), "cut short"),
        (png(chunk(b"iTXt", b"edgegen\0")), "its recipe: not JSON"),
        (png(text(RECIPE.text().encode()))[:60], "is cut short: it ends inside of a chunk"),
        (SIGNATURE, "is cut short"),
        (SIGNATURE + struct.pack(">I", 0xFFFFFFFF) + b"tEXtedgegen\0", "is cut short"),
        (b"GIF89a", "is no PNG"),
        (b"", "is no PNG"),
    ],
)
def test_a_hostile_chunk_is_refused_with_one_message(path: Path, content: bytes, message: str) -> None:
    assert message in refusal(path, content)


def test_a_file_of_gigabytes_takes_no_memory(path: Path) -> None:
    """A chunk of 2 GB, in a file with a hole: what has no need to be read is not read."""
    length = (1 << 31) - 1
    with path.open("wb") as file:
        file.write(png()[:33] + struct.pack(">I", length) + b"tEXtComment\0")
        file.seek(33 + 8 + length)
        file.write(b"crc!" + text(RECIPE.text().encode()) + chunk(b"IEND", b""))
    code = (
        "import resource, sys; from pathlib import Path; from edgegen.formats.picture import read_recipe;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; print(read_recipe(Path(sys.argv[1])).seed);"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(RECIPE.seed), done.stderr


def test_the_text_is_ascii_and_the_same_each_time() -> None:
    assert RECIPE.text() == PictureRecipe.model_validate_json(RECIPE.text(), strict=True).text()
    RECIPE.text().encode("ascii")
