"""Hugging Face datasets: "hf:NAME[:SPLIT]" from the hub, "hf:./FOLDER[:SPLIT]" as written by `save_to_disk`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.data.images import ImageSet, LoadProgress, image_set, with_heldout
from edgegen.data.pixels import decode, pillow_warnings, stack
from edgegen.errors import DataError, MissingExtraError, unknown_name
from edgegen.support.bounded_files import LARGEST_IMAGE, read_bytes, user_path

PREFIX = "hf:"
LOCAL = ("./", "../", "/", "~")  # anything else names a dataset on the hub, which may be downloaded
IMAGE_NAMES = ("image", "img", "images")
LABEL_NAMES = ("label", "labels")


def load(source: str, *, base: Path, progress: LoadProgress | None = None) -> ImageSet:
    """Without SPLIT: "train" (or the only split), and "test" as the held-out part if there is one. Raises DataError."""
    name, _, split = source.removeprefix(PREFIX).partition(":")
    dataset = _open(name, base)
    splits = dict(dataset) if hasattr(dataset, "keys") else {"": dataset}
    if split and split not in splits:
        raise DataError(f"{source}: {unknown_name('split', split, splits)}")
    first = split or ("train" if "train" in splits else next(iter(splits)))
    if not split and "train" not in splits and len(splits) > 1:
        raise DataError(f"{source}: {unknown_name('split', 'train', splits)} Say which: {source}:{first}")
    shown = f"{PREFIX}{Path(name).name if name.startswith(LOCAL) else name}" + (f":{split}" if split else "")
    train = _read(splits[first], shown, progress)
    if split or first != "train" or "test" not in splits:
        return train
    return with_heldout(train, _read(splits["test"], shown, progress))


def local_folder(source: str, *, base: Path) -> Path | None:
    """The folder of a source written by `save_to_disk`; None for a name on the hub."""
    name = source.removeprefix(PREFIX).partition(":")[0]
    return user_path(name, base=base) if name.startswith(LOCAL) else None


def _open(name: str, base: Path) -> Any:
    try:
        import datasets
    except ImportError as e:
        raise MissingExtraError("datasets", extra="datasets", purpose=f"The source '{PREFIX}{name}'") from e
    local = name.startswith(LOCAL)
    folder = user_path(name, base=base) if local else base
    if local and not folder.is_dir():
        raise DataError(f"no folder {folder}; '{PREFIX}{name}' should be one that a dataset's save_to_disk wrote")
    try:
        return datasets.load_from_disk(str(folder)) if local else datasets.load_dataset(name)
    except Exception as e:
        # Anything can come from there: the network, the file formats, the hub's own errors.
        advice = "is it a folder written by save_to_disk?" if local else "check the name and the network"
        raise DataError(f"{PREFIX}{name}: cannot be loaded ({type(e).__name__}: {e}); {advice}") from e


def _read(rows: Any, source: str, progress: LoadProgress | None) -> ImageSet:
    import datasets

    images = _column(rows, "Image", IMAGE_NAMES, source)
    if images is None:
        raise DataError(f"{source}: no column of images; found {_columns(rows)}")
    # Undecoded, so that one decoder (ours) and one set of rules hold for all sources.
    encoded = rows.select_columns([images]).cast_column(images, datasets.Image(decode=False))
    with pillow_warnings():
        pixels = stack(
            [f"row {i}" for i in range(len(rows))],
            lambda i: decode(_content(encoded[i][images], f"{source}: row {i}"), f"{source}: row {i}"),
            source=source,
            progress=progress,
        )
    return _labelled(rows, pixels, source)


def _labelled(rows: Any, pixels: NDArray[np.uint8], source: str) -> ImageSet:
    """With the labels of a ClassLabel column; failing that, of a column "label" of whole numbers or names."""
    column = _column(rows, "ClassLabel", LABEL_NAMES, source)
    column = column or next((name for name in LABEL_NAMES if name in rows.features), None)
    if column is None:
        return image_set(pixels, None, source=source)
    values, names = rows[column][:], getattr(rows.features[column], "names", None)
    if None in values or (names is not None and -1 in values):
        raise DataError(f"{source}: a row of column '{column}' has no label (-1 or none); filter those rows out")
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return image_set(pixels, values, source=source)
    if kinds == {int}:
        return image_set(pixels, np.array(values), source=source, names=names)
    raise DataError(f"{source}: column '{column}' holds neither whole numbers nor names; rename it if it is no label")


def _column(rows: Any, kind: str, names: tuple[str, ...], source: str) -> str | None:
    """The column of a kind: the one with a usual name, or the only one; None where there is none."""
    matching = [name for name, feature in rows.features.items() if type(feature).__name__ == kind]
    usual = [name for name in names if name in matching]
    if len(matching) > 1 and not usual:
        raise DataError(
            f"{source}: several columns of kind {kind}: {', '.join(matching)}; rename the one to use to '{names[0]}' "
            f"(rename_column, then save_to_disk, then {PREFIX}./FOLDER)"
        )
    return next(iter(usual or matching), None)


def _columns(rows: Any) -> str:
    return ", ".join(f"{name} ({type(feature).__name__})" for name, feature in rows.features.items())


def _content(cell: Any, name: str) -> bytes:
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        raise DataError(f"{name}: has no image; filter such rows out")
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    try:
        return read_bytes(Path(cell["path"]), largest=LARGEST_IMAGE)
    except DataError as e:
        raise DataError(f"{name}: {e}") from e
