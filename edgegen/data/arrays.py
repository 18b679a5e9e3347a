"""One array of a .npz or .safetensors file, for an input of a network."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.data.npz import Arrays
from edgegen.errors import DataError, unknown_name
from edgegen.support.storage import load_tensors

SUFFIXES = (".npz", ".safetensors")


def read_array(path: Path, name: str) -> NDArray[Any]:
    """The array `name` of the file, or its only one. Raises DataError where there is none, or it holds no numbers."""
    if not path.is_file():
        raise DataError(f"no file {path}")
    if path.suffix.lower() == ".npz":
        arrays = Arrays(path)
        values = arrays[_key(path, name, arrays.names)]
    else:
        tensors = load_tensors(path)
        tensor = tensors[_key(path, name, tuple(tensors))]
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: '{name}' is an array of {values.dtype}, not of numbers")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: '{name}' holds values that are not finite (NaN or infinity)")
    return values


def _key(path: Path, name: str, names: tuple[str, ...]) -> str:
    if name in names or len(names) == 1:
        return name if name in names else names[0]
    raise DataError(f"{path}: {unknown_name('array', name, names)}")
