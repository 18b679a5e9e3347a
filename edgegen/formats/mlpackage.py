"""Core ML packages: read with one clear error, written so that the same program gives the same bytes. Vendor seam."""

import contextlib
import hashlib
import io
import json
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from edgegen.errors import DataError, ExportError, MissingExtraError
from edgegen.support import vendor_logs
from edgegen.support.bounded_files import check_regular, opened, tree
from edgegen.support.storage import atomic_path, read_json

SUFFIX = ".mlpackage"
MODEL = "com.apple.CoreML/model.mlmodel"  # as Xcode and coremltools lay a package out, below Data/
WEIGHTS = "com.apple.CoreML/weights"
PIECE = 1 << 20  # bytes read at a time
CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"


class Systems(NamedTuple):
    """The oldest systems that run a file."""

    ios: int
    macos: int


# By the version of the specification, as coremltools has them (AvailableTarget).
SYSTEMS = {6: Systems(15, 12), 7: Systems(16, 13), 8: Systems(17, 14), 9: Systems(18, 15), 10: Systems(26, 26)}

# coremltools imports every one of these that is installed, to convert its models: four seconds of each process.
OTHER_FRAMEWORKS = ("executorch.exir", "libsvm", "sklearn", "tensorflow", "torchao", "transformers", "xgboost")
COREML = vendor_logs.Chatter(
    # coremltools reports the Mac libraries that Linux lacks and versions not tested with it.
    ("coremltools", "torch.utils._pytree"),
    (
        vendor_logs.TREESPEC,
        r"Function _TORCH_OPS_REGISTRY",  # its own deprecation, on every conversion
        r"Implicitly cleaning up <TemporaryDirectory",  # its own temporary files
    ),
)


@dataclass(frozen=True)
class Package:
    """A package that was read: `spec` is the Model protobuf, `weights` the folder its values point into."""

    spec: Any
    weights: Path


def coremltools(purpose: str) -> Any:
    """The vendor's package with `optimize.coreml`. Raises MissingExtraError where it is not installed.

    Without its converters of other frameworks' models: who needs those too imports coremltools before edgegen does.
    """
    try:
        with silent(), absent(OTHER_FRAMEWORKS):
            import coremltools as vendor
            import coremltools.optimize.coreml
    except ImportError as e:
        raise MissingExtraError(e.name or "coremltools", extra="coreml", purpose=purpose) from e
    return vendor


@contextlib.contextmanager
def absent(packages: tuple[str, ...]) -> Iterator[None]:
    """What is imported inside finds none of `packages`; one that has been imported before stays.

    Of "a.b" the whole package a is hidden, unless its part b has been imported.
    """
    hidden = {name.partition(".")[0] for name in packages if name not in sys.modules}
    before = {name: sys.modules[name] for name in hidden if name in sys.modules}
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # what makes an import fail at once
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(before)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Silence around every call of coremltools: its chatter, and its progress bars, which have no switch."""
    with vendor_logs.quiet(COREML), contextlib.redirect_stderr(io.StringIO()):
        yield


class _Item(BaseModel):
    path: str


class _Manifest(BaseModel):
    """What is read of Manifest.json."""

    items: dict[str, _Item] = Field(alias="itemInfoEntries")
    root: str = Field(alias="rootModelIdentifier")


def model_file(path: Path) -> Path:
    """The file in a package that its manifest names as the model, after a look at all files of the package.

    Raises ValueError for a file that is no regular one, or lies elsewhere, and for another kind of manifest.
    """
    try:
        for file in tree(path).files:
            check_regular(file)
        manifest = _Manifest.model_validate(read_json(path / "Manifest.json"), strict=True)
    except DataError as e:
        raise ValueError(str(e)) from e
    for item in manifest.items.values():
        if Path(item.path).is_absolute() or ".." in Path(item.path).parts:
            raise ValueError(f"its manifest names {item.path}, which lies outside")
    if manifest.root not in manifest.items:
        raise ValueError("its manifest names no model")
    return path / "Data" / manifest.items[manifest.root].path


def read(path: Path) -> Package:
    """The ML Program in the folder `path`. Raises ExportError that says what was found when it cannot be read."""
    vendor = coremltools("reading a Core ML package")
    try:
        if not (path / "Manifest.json").exists():
            raise FileNotFoundError("no Manifest.json")
        model_file(path)
        with silent():
            model = vendor.models.MLModel(str(path), skip_model_load=True)
        spec = model.get_spec()
        if spec.WhichOneof("Type") != "mlProgram":
            raise ValueError(f"model.mlmodel holds {spec.WhichOneof('Type') or 'nothing'}, not an ML Program")
    except Exception as e:
        raise unreadable(path, e) from e
    return Package(spec, path / "Data" / WEIGHTS)


def specification_version(path: Path) -> int:
    """Of the package `path`, without coremltools. Raises ExportError where it cannot be read.

    It is the first field of the Model protobuf, so it comes first: its key (field 1, a varint) and a byte below 128.
    """
    try:
        with opened(model_file(path)) as file:
            start = file.read(2)
        if len(start) < 2 or start[0] != 1 << 3 or start[1] >= 128:
            raise ValueError(f"model.mlmodel begins with {start!r}, not with the version of its specification")
    except (OSError, ValueError, DataError) as e:
        raise unreadable(path, e) from e
    return start[1]


def unreadable(path: Path, cause: Exception) -> ExportError:
    """The one error for a package that is missing, cut short or of another kind: the cause and what is there."""
    text = str(cause).replace(f"{path}/", "")
    return ExportError(f"cannot read the Core ML package {path.name} ({_found(path)}): {text}")


def _found(path: Path) -> str:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return ", ".join(f"{file.name} {file.stat().st_size} bytes" for file in files) or "an empty folder"
    return f"a file of {path.stat().st_size} bytes, not a folder" if path.exists() else "nothing there"


def write(spec: Any, weights: Path, path: Path) -> None:
    """Write the Model protobuf and the files of the folder `weights` as the package `path`. Raises StorageError.

    The same program gives the same bytes: protobuf maps are sorted, the manifest's identifiers come from the content
    instead of a random source, and the day of the conversion is left out.
    """
    spec.description.metadata.userDefined.pop(CONVERSION_DATE, None)
    model = spec.SerializeToString(deterministic=True)
    digest = hashlib.sha256(model)
    with atomic_path(path) as temporary:
        folder = temporary / "Data" / WEIGHTS
        folder.mkdir(parents=True)
        (temporary / "Data" / MODEL).write_bytes(model)
        for source in sorted(weights.iterdir()):
            shutil.copyfile(source, folder / source.name)
            with source.open("rb") as file:  # in pieces: the weights of a big generator are gigabytes
                while piece := file.read(PIECE):
                    digest.update(piece)
        (temporary / "Manifest.json").write_text(_manifest(digest.hexdigest()))


def _manifest(digest: str) -> str:
    items = (MODEL, "CoreML Model Specification"), (WEIGHTS, "CoreML Model Weights")
    names = {item: str(uuid.uuid5(uuid.NAMESPACE_URL, f"edgegen:{digest}:{item}")).upper() for item, _ in items}
    entries = {
        names[item]: {"author": "com.apple.CoreML", "description": text, "name": Path(item).name, "path": item}
        for item, text in items
    }
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": names[MODEL]}
    return json.dumps(manifest, indent=4, sort_keys=True) + "\n"
