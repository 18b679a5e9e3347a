"""A file that `edgegen sample` wrote, read again: what it was made by, and its values.

A PNG carries its recipe in a text chunk (edgegen.formats.picture), a .npz of signals in an array of the same name.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.signal_files import SIGNALS, SUFFIXES
from edgegen.data.npz import Arrays
from edgegen.data.pixels import read_image
from edgegen.errors import DataError
from edgegen.formats.picture import KEYWORD, LARGEST, PictureRecipe, read_recipe, recipe_of_text

NPZ = ".npz"
HEAD = 256  # bytes before the values of an array; a text has four bytes a character


def is_signals(path: Path) -> bool:
    """Whether a file is one of signals, by its name."""
    return path.suffix.lower() in SUFFIXES


def recipe_of(path: Path) -> PictureRecipe:
    """What a PNG or a .npz of signals was made by. Raises DataError for a file without a recipe and a damaged one."""
    if not is_signals(path):
        return read_recipe(path)
    if path.suffix.lower() != NPZ:
        raise DataError(f"{path}: carries no recipe; of signals, {NPZ} files do")
    arrays = Arrays(path)
    if KEYWORD not in arrays.names:
        raise DataError(f"{path}: carries no recipe: it has no array '{KEYWORD}'; edgegen sample did not write it so")
    if arrays.nbytes[KEYWORD] > HEAD + 4 * LARGEST:
        raise DataError(f"{path}: its recipe has {arrays.nbytes[KEYWORD]:,} bytes; at most {4 * LARGEST:,} are read")
    text = arrays[KEYWORD]
    if text.dtype.kind != "U" or text.size != 1:
        raise DataError(f"{path}: its recipe cannot be read: it is {text.dtype} {text.shape}; needed: one text")
    return recipe_of_text(str(text.reshape(())).encode("utf-8", "surrogatepass"), path)


def values_of(path: Path) -> NDArray[Any]:
    """Its pixels, or its signals in the units of the data, as float64. Raises DataError."""
    if not is_signals(path):
        return read_image(path).astype(np.float64)
    arrays = Arrays(path)
    signals = arrays[SIGNALS] if SIGNALS in arrays.names else np.zeros(0, np.str_)
    if signals.dtype.kind not in "iuf":
        raise DataError(f"{path}: has no numbers as '{SIGNALS}', though a recipe of some: it was changed")
    return signals.astype(np.float64)
