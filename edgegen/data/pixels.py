"""Image files and Pillow images -> one uint8 array: grey or RGB, upright, all of one size."""

import io
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgegen.data.images import LoadProgress, check_memory
from edgegen.errors import DataError
from edgegen.support.storage import read_bytes

MAX_FILE = 64 << 20  # bytes: a 4096x4096 RGB .bmp has 48 MiB
REPORT_EVERY = 256  # images between calls of `progress`
MAX_SIDE = 4096  # pixels; far more than a network on a phone makes, far fewer than fill the memory
GREY_MODES = {"1", "L", "LA", "La"}
DEEP_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
RESIZE = "resize them to one size first, such as: mogrify -resize 64x64^ -gravity center -extent 64x64 *.png"
# What Pillow raises on files that do not keep to their format
CORRUPT = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """An image file -> uint8 (height, width, 1) if it is grey or black and white, else (height, width, 3).

    The camera's orientation mark is applied; palettes, CMYK and other colours become RGB; an alpha that is opaque
    everywhere is dropped. Raises DataError that names the file: where it is corrupt, and where it has transparency,
    more than 8 bits or several frames, because what those should become is the user's choice.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _convert(image, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:  # see `pillow_warnings`
        raise DataError(f"{name}: refused, a decompression bomb: {e}") from e
    except UnidentifiedImageError as e:  # its text names an object in memory
        raise DataError(f"{name}: not a whole image file (of no known format); replace it or remove it") from e
    except CORRUPT as e:
        raise DataError(f"{name}: not a whole image file ({e}); replace it or remove it") from e


def read_image(path: Path) -> NDArray[np.uint8]:
    """As `decode`, of one file. Raises DataError also where it is missing or has more than MAX_FILE bytes."""
    with pillow_warnings():
        return decode(read_bytes(path, largest=MAX_FILE), str(path))


def _convert(image: Image.Image, name: str) -> NDArray[np.uint8]:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise DataError(
            f"{name}: {width}x{height} pixels; the limit is {MAX_SIDE} a side, and tens to hundreds are usual"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(
            f"{name}: an animation of {getattr(image, 'n_frames', 1)} frames; save the frames as single images"
        )
    if image.mode in DEEP_MODES:
        raise DataError(f"{name}: more than 8 bits a channel (mode {image.mode}); save it with 8 bits")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        alpha = upright.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise DataError(
                f"{name}: has transparent pixels; put it on a background first, such as: "
                "mogrify -background white -alpha remove -alpha off *.png"
            )
        upright = upright.convert("RGBA")
    grey = image.mode in GREY_MODES
    pixels = np.asarray(upright.convert("L" if grey else "RGB"), dtype=np.uint8)
    return pixels.reshape(upright.height, upright.width, 1 if grey else 3)


def stack(
    names: Sequence[str], read: Callable[[int], NDArray[np.uint8]], *, source: str, progress: LoadProgress | None = None
) -> NDArray[np.uint8]:
    """Images 0..n-1 by `read` -> uint8 (n, height, width, channels); 1 channel if all are grey, else grey ones are
    repeated to 3. Raises DataError that names two images of different sizes."""
    first = read(0)
    check_memory(len(names), (*first.shape[:2], 3), source=source)
    out = np.empty((len(names), *first.shape[:2], 3), dtype=np.uint8)
    colour = False
    for i in range(len(names)):
        pixels = first if i == 0 else read(i)
        if pixels.shape[:2] != first.shape[:2]:
            sizes = [f"{name} is {p.shape[1]}x{p.shape[0]}" for name, p in ((names[0], first), (names[i], pixels))]
            raise DataError(f"{source}: images differ in size (width x height): {', '.join(sizes)}; {RESIZE}")
        colour = colour or pixels.shape[2] == 3
        out[i] = pixels
        if progress is not None and ((i + 1) % REPORT_EVERY == 0 or i + 1 == len(names)):
            progress(i + 1, len(names))
    return out if colour else np.ascontiguousarray(out[..., :1])


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Around many `decode`: a decompression bomb is an error; broken camera data, which no pixel needs, is ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield
