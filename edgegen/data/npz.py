"""A NumPy .npz file of images or signals, and labels where there are any. Nothing in it is ever unpickled."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.data.images import MAX_BYTES, ImageSet, image_set, with_heldout
from edgegen.data.signals import signal_set
from edgegen.errors import DataError
from edgegen.support.bounded_files import ZIP_ERRORS, check_regular

# (images, labels) and the same of the test part: the names that Keras, MedMNIST, Fashion-MNIST, scikit-learn and
# np.savez without names give
KEYS: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("train_images", "train_labels"), ("test_images", "test_labels")),
    (("x_train", "y_train"), ("x_test", "y_test")),
    (("images", "labels"), ("", "")),
    (("x", "y"), ("", "")),
    (("data", "target"), ("", "")),
    (("data", "labels"), ("", "")),
    (("arr_0", "arr_1"), ("", "")),
)
SIGNAL_KEYS = (  # the same of signals, with which go SAMPLE_RATE and CLASS_NAMES
    (("train_signals", "train_labels"), ("test_signals", "test_labels")),
    (("signals", "labels"), ("", "")),
)
SAMPLE_RATE, CLASS_NAMES = "sample_rate", "class_names"


def load(path: Path) -> ImageSet:
    """uint8 images (n, h, w) or (n, h, w, 1 or 3), and labels (n,) or (n, 1): whole numbers or names.

    Or signals (n, channels, length), or (n, length), of any real numbers, as `signals`. A test part becomes `heldout`;
    arrays of other names are not read. Raises DataError.
    """
    arrays = Arrays(path)
    known = [keys for keys in (*SIGNAL_KEYS, *KEYS) if keys[0][0] in arrays.names]
    if not known:
        pairs, of_signals = (
            ", ".join(f"{images} + {labels}" for (images, labels), _ in keys) for keys in (KEYS, SIGNAL_KEYS)
        )
        raise DataError(
            f"{path}: no images under a known name; found {', '.join(arrays.names)}; known: {pairs}; of signals: "
            f"{of_signals}"
        )
    # "data" may go with "target" or with "labels"
    train, test = next((keys for keys in known if keys[0][1] in arrays.names), known[0])
    read = _signals if (train, test) in SIGNAL_KEYS else _part
    first = read(arrays, *train)
    return with_heldout(first, read(arrays, *test)) if test[0] in arrays.names else first


class Arrays:
    """The arrays of an .npz file, each read when it is indexed; errors of zipfile and NumPy become DataErrors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_regular(path)
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except ZIP_ERRORS as e:
            raise DataError(f"{path}: not an .npz file, or cut short ({e}); write it with np.savez") from e
        self.names = tuple(info.filename.removesuffix(".npy") for info in members)
        self.nbytes = {info.filename.removesuffix(".npy"): info.file_size for info in members}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if self.nbytes[name] > MAX_BYTES:
            size = f"{self.nbytes[name] / 2**30:.1f} GiB"
            raise DataError(
                f"{self.path}: '{name}' unpacks to {size}, the limit is {MAX_BYTES >> 30} GiB; take fewer images"
            )
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return np.asarray(file[name])
        except (*ZIP_ERRORS, SyntaxError, TypeError, RecursionError) as e:  # NumPy's heads are Python literals
            if "Object arrays" not in str(e):
                raise self._corrupt(name, e) from e
            raise DataError(
                f"{self.path}: '{name}' is an array of Python objects, which only pickle could read and edgegen never "
                "does; save one plain array, such as np.stack(images).astype(np.uint8)"
            ) from e

    def _corrupt(self, name: str, e: Exception) -> DataError:
        return DataError(f"{self.path}: '{name}' is corrupt ({e}); make the file again, or copy it again")


def _part(arrays: Arrays, images_key: str, labels_key: str) -> ImageSet:
    where = f"{arrays.path}: '{images_key}'"
    images = arrays[images_key]
    _check_type(images, where)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise DataError(f"{where} has shape {images.shape}; needed: (n, height, width) or (n, height, width, channels)")
    if images.shape[3] not in (1, 3):
        raise DataError(f"{where} has shape {images.shape}: {_channels(images.shape)}")
    labels = _labels(arrays, labels_key) if labels_key in arrays.names else None
    return image_set(images, labels, source=arrays.path.name)


def _signals(arrays: Arrays, signals_key: str, labels_key: str) -> ImageSet:
    labels = _labels(arrays, labels_key) if labels_key in arrays.names else None
    rate, names = (arrays[key] if key in arrays.names else None for key in (SAMPLE_RATE, CLASS_NAMES))
    if rate is not None and (rate.size != 1 or rate.dtype.kind not in "iuf"):
        raise DataError(f"{arrays.path}: '{SAMPLE_RATE}' is {rate.dtype} {rate.shape}; needed: one number, in Hz")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(f"{arrays.path}: '{CLASS_NAMES}' is {names.dtype} {names.shape}; needed: texts, (classes,)")
    return signal_set(
        arrays[signals_key],
        labels,
        source=arrays.path.name,
        sample_rate_hz=None if rate is None else float(rate.reshape(())),
        names=None if names is None else tuple(names.tolist()),
    )


def _check_type(images: NDArray[Any], where: str) -> None:
    if images.dtype == np.uint8:
        return
    kind, advice = str(images.dtype), ""
    if images.size and images.dtype.kind in "biuf":
        low, high = float(images.min()), float(images.max())
        kind += f" with values {low:g} to {high:g}"
        if images.dtype.kind != "f" or high > 1:
            scaled = "x * 255" if images.dtype.kind == "b" else "np.rint(x).clip(0, 255)"
        else:
            scaled = "np.rint((x + 1) * 127.5)" if low < 0 else "np.rint(x * 255)"
        advice = f". Convert: ({scaled}).astype(np.uint8)"
        if images.ndim == 3:
            advice += "; or, if these are signals (n, channels, length), save them as 'signals'"
    raise DataError(f"{where} is {kind}; needed: uint8, 0 to 255{advice}")


def _channels(shape: tuple[int, ...]) -> str:
    if shape[1] in (1, 3):
        return "channels come first; needed: channels last, x.transpose(0, 2, 3, 1)"
    if shape[3] == 4:
        return "4 channels; needed: 1 or 3. Without the alpha: x[..., :3]"
    return f"{shape[3]} channels; needed: 1 (grey) or 3 (red, green, blue)"


def _labels(arrays: Arrays, name: str) -> NDArray[Any]:
    labels = arrays[name]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise DataError(
            f"{arrays.path}: '{name}' has shape {labels.shape}; one-hot? needed: (n,). Convert: .argmax(axis=1)"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{arrays.path}: '{name}' is {labels.dtype} {labels.shape}; needed: whole numbers, or names, (n,)"
        )
    return labels
