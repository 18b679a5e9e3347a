"""A set of images, or of signals, in memory: the record that every loader gives, and its split in two."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError
from edgegen.noise import philox4x32

LoadProgress = Callable[[int, int], None]  # (done, total)
MAX_BYTES = 8 << 30  # of decoded images: everything is held in memory
SPLIT_STREAM = 1  # second word of the Philox counter; noise.normal uses 0


@dataclass(frozen=True, eq=False)
class ImageSet:
    """uint8 images (n, height, width, channels), 1 or 3 channels; int64 labels (n,) in 0..k-1, or None.

    Or floating-point signals (n, channels, length) in the user's units, of `sample_rate_hz` if that is known.
    `classes` has the k names, () without labels; `source` says where the images come from, never as a full path;
    `heldout` is the part that the source itself keeps for testing.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    source: str
    heldout: "ImageSet | None" = None
    sample_rate_hz: float | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def are_signals(self) -> bool:
        return self.images.ndim == 3

    def rows(self, index: NDArray[np.int64]) -> "ImageSet":
        """The images of these indices, in this order, without the held-out part."""
        labels = None if self.labels is None else self.labels[index]
        return replace(self, images=self.images[index], labels=labels, heldout=None)


def image_set(
    images: NDArray[np.uint8],
    labels: Sequence[str] | NDArray[Any] | None,
    *,
    source: str,
    names: Sequence[str] | None = None,
) -> ImageSet:
    """Checks the images and counts the classes that occur 0..k-1. Raises DataError.

    `labels` are whole numbers, in whose order the classes come, with `names[label]` as their names if given; or they
    are the names themselves, which come in sorted order.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        raise DataError(f"{source}: images are {images.dtype} {images.shape}; needed: uint8 (n, height, width, 1 or 3)")
    if len(images) < 2:
        raise DataError(f"{source}: {len(images)} image(s); at least 2 are needed, one to learn from and one to test")
    return labelled(images, labels, source=source, names=names)


def labelled(
    images: NDArray[Any],
    labels: Sequence[str] | NDArray[Any] | None,
    *,
    source: str,
    names: Sequence[str] | None = None,
    sample_rate_hz: float | None = None,
) -> ImageSet:
    """The set of images or signals that are checked, with `labels` and `names` as in `image_set`. Raises DataError."""
    kind = "signal" if images.ndim == 3 else "image"
    if labels is None:
        return ImageSet(images, None, (), source, sample_rate_hz=sample_rate_hz)
    if len(labels) != len(images):
        raise DataError(f"{source}: {len(labels)} labels for {len(images)} {kind}s; there must be one label for each")
    values = np.asarray(labels)
    if values.dtype.kind in "iu":
        if values.min() < 0:
            where = int(values.argmin())
            raise DataError(f"{source}: label {values[where]} of {kind} {where} is negative; labels count from 0")
        if names is not None and values.max() >= len(names):
            where = int(values.argmax())
            raise DataError(
                f"{source}: label {values[where]} of {kind} {where} has no name; there are {len(names)} names, for 0 "
                f"to {len(names) - 1}"
            )
        present, indices = np.unique(values, return_inverse=True)
        classes = [str(value) if names is None else names[int(value)] for value in present]
    else:
        classes = sorted({str(label) for label in labels}, key=class_order)
        position = {name: i for i, name in enumerate(classes)}
        indices = np.array([position[str(label)] for label in labels])
    rows = indices.reshape(-1).astype(np.int64)
    return ImageSet(images, rows, tuple(classes), source, sample_rate_hz=sample_rate_hz)


def with_heldout(train: ImageSet, test: ImageSet) -> ImageSet:
    """Joins the two parts of a source; the labels of `test` become those of `train`. Raises DataError."""
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{train.images.shape[1:]} in the training part, {test.images.shape[1:]} in the test part"
        axes = (
            "signals differ in (channels, length)"
            if train.are_signals
            else "images differ in (height, width, channels)"
        )
        raise DataError(f"{train.source}: {axes}: {shapes}; resize one of them")
    if (train.labels is None) != (test.labels is None):
        which = "test" if test.labels is None else "training"
        raise DataError(f"{train.source}: the {which} part has no labels, the other has; give both or neither")
    if train.labels is None or test.labels is None:
        return replace(train, heldout=test)
    unknown = sorted(set(test.classes) - set(train.classes))
    if unknown:
        raise DataError(
            f"{train.source}: class '{unknown[0]}' is in the test part only; there must be images to learn from"
        )
    table = np.array([train.classes.index(name) for name in test.classes], dtype=np.int64)
    return replace(train, heldout=replace(test, labels=table[test.labels], classes=train.classes))


def split(images: ImageSet, *, holdout: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """(training part, held-out part): disjoint, together everything, the same share of every class.

    The held-out part is in random order, so that its first n are a draw of all classes: sources are sorted by class.

    A source with a test part of its own keeps that, whatever `holdout` says. Otherwise each class gives
    round(holdout * its images), at least 1 and never all; which ones depends on (seed, index) alone, on every machine
    and with every version of NumPy. Raises DataError where a class has a single image.
    """
    if images.heldout is not None:
        return replace(images, heldout=None), images.heldout.rows(_shuffled(len(images.heldout), seed))
    labels = np.zeros(len(images), dtype=np.int64) if images.labels is None else images.labels
    order = _shuffled(len(images), seed)
    kept, held = [], []
    for label in range(max(images.num_classes, 1)):
        members = order[labels[order] == label]
        if len(members) < 2:
            name = f"class '{images.classes[label]}'" if images.classes else "the set"
            raise DataError(
                f"{images.source}: {name} has a single image, which cannot be both in the training part and in the "
                "held-out part; add images, or leave the class out"
            )
        count = min(max(int(holdout * len(members) + 0.5), 1), len(members) - 1)
        held.append(members[:count])
        kept.append(members[count:])
    return images.rows(np.sort(np.concatenate(kept))), images.rows(order[np.isin(order, np.concatenate(held))])


def check_memory(count: int, shape: tuple[int, ...], *, source: str) -> None:
    """Raises DataError before images that cannot be held in memory are decoded."""
    nbytes = count * int(np.prod(shape, dtype=np.int64))
    if nbytes > MAX_BYTES:
        raise DataError(
            f"{source}: {count} images of {'x'.join(map(str, shape))} are {nbytes / 2**30:.1f} GiB in memory, more "
            f"than the limit of {MAX_BYTES >> 30} GiB; make them smaller, or take fewer"
        )


def class_order(name: str) -> tuple[int, int, str]:
    """Numbers first and by value: class "10" comes after "9"."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)


def _shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """The indices 0..count-1 in the order of a 64-bit Philox number each."""
    counter = np.zeros((count, 4), dtype=np.uint64)
    counter[:, 1] = SPLIT_STREAM
    counter[:, 2] = np.arange(count, dtype=np.uint64)
    words = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable").astype(np.int64)
