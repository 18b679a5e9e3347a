"""Images or signals from where the recipe says: `load` chooses the loader, `split` keeps a part from training."""

import difflib
import zipfile
from pathlib import Path

from edgegen.data import digits, folder, hf, npz, oscillations
from edgegen.data.images import ImageSet, LoadProgress, split
from edgegen.errors import DataError
from edgegen.support.bounded_files import check_regular, user_path
from edgegen.support.pixels import to_float, to_uint8

__all__ = [
    "SOURCES",
    "ImageSet",
    "LoadProgress",
    "check_archive",
    "load",
    "local_path",
    "split",
    "to_float",
    "to_uint8",
]

# What a source may look like, and what it is; relative places are relative to the recipe's folder.
SOURCES = {
    "digits": "the handwritten digits of scikit-learn, 8x8, no download",
    "oscillations": "signals: 3,000 damped oscillators by a formula, 2 x 128, no download",
    "NAME.npz": "uint8 arrays, such as images + labels or x_train + y_train; or signals + labels",
    "FOLDER": "images, one sub-folder per class or none (./digits where the folder has a name of this table)",
    "NAME.zip": "such a folder, zipped",
    "hf:NAME[:SPLIT]": "a dataset on the Hugging Face hub; hf:./FOLDER for one written by save_to_disk",
}


BUILT_IN = {"digits": digits.load, "oscillations": oscillations.load}


def load(source: str, *, base: Path, progress: LoadProgress | None = None) -> ImageSet:
    """The images of a recipe's `data.source`; `base` is the recipe's folder. Raises DataError."""
    if source in BUILT_IN:
        return BUILT_IN[source]()
    if source.startswith(hf.PREFIX):
        return hf.load(source, base=base, progress=progress)
    path = user_path(source, base=base)
    if path.is_dir():
        return folder.load(path, progress=progress)
    if not path.exists():
        raise DataError(_missing(source, path))
    if path.suffix.lower() == ".npz":
        return npz.load(path)
    if path.suffix.lower() == ".zip":
        return folder.load(path, progress=progress)
    raise DataError(f"data.source '{source}' is a file of an unknown kind; {_kinds()}")


def check_archive(path: Path) -> None:
    """Before a large file is hashed: raises DataError for a .npz or .zip that is no archive."""
    if path.suffix.lower() in (".npz", ".zip") and not path.is_dir():
        check_regular(path)
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not a {path.suffix} file, or cut short; make it again, or copy it again")


def local_path(source: str, *, base: Path) -> Path | None:
    """The file or folder that a source reads, there or not; None for what is built in and for datasets on the hub."""
    if source.startswith(hf.PREFIX):
        return hf.local_folder(source, base=base)
    return None if source in BUILT_IN else user_path(source, base=base)


def _missing(source: str, path: Path) -> str:
    entries = [*path.parent.iterdir()] if path.parent.is_dir() else []
    around = [entry.name for entry in entries if entry.is_dir() or entry.suffix.lower() in (".npz", ".zip")]
    near = difflib.get_close_matches(path.name, [*around, *BUILT_IN], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    beside = "" if entries else f" (there is no folder {path.parent})" if not path.parent.is_dir() else ""
    return f"data.source '{source}': nothing at {path}{beside}.{hint} {_kinds()}"


def _kinds() -> str:
    return "A source is one of: " + ", ".join(f"{source} ({meaning})" for source, meaning in SOURCES.items())
