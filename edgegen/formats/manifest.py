"""manifest.json beside the exported files: what they take and give, how true they are, and what made them."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgegen.errors import DataError
from edgegen.formats.bundle import Bundle, bundle_of, is_of_bundle
from edgegen.formats.file_hashes import FileHashes
from edgegen.formats.signal_units import UNITS, SignalUnits
from edgegen.formats.signature_values import check_signature
from edgegen.support.extras import version_of
from edgegen.support.schema import Count, FileName, Sha256
from edgegen.support.storage import read_json, write_json
from edgegen.types import Artifact, Parity, Signature, Status

MANIFEST = "manifest.json"
SCHEMA = "edgegen.manifest/1"
TOOLS = ("edgegen", "torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "executorch", "torchao", "coremltools")
REMEDY = "export it again, or copy it again if it came from elsewhere"


class _File(BaseModel):
    sha256: Sha256


class _Input(BaseModel):
    name: str
    shape: tuple[Count | str, ...]


class _Output(_Input):
    method: str
    dtype: str
    layout: str
    colors: str = ""


class _Details(BaseModel):
    extra_files: dict[FileName, _File] = {}
    batch: Count | None = None
    inputs: tuple[_Input, ...] = ()
    outputs: tuple[_Output, ...] = ()


class _Parity(BaseModel):
    status: Status
    psnr_db: float | None = None


class _Row(BaseModel):
    file: FileName
    backend: str
    scheme: str
    variant: str = ""
    nbytes: Count
    sha256: Sha256
    parity: _Parity = _Parity(status="not checked")
    details: _Details


class _Manifest(BaseModel):
    """What is read of the file; other keys are for people."""

    artifacts: tuple[_Row, ...]
    signature: dict[str, Any]
    class_names: tuple[str, ...] = ()
    lineage: dict[str, Any] = {}
    tools: dict[str, str] = {}


@dataclass(frozen=True)
class ManifestEntry:
    """What manifest.json says of one file: `row` of that file, with its parity; `signature` of all of them.

    `class_names` are those of the classes 0, 1, ..., () where nothing knows them. `lineage`, `tools` and `units` as in
    `write_manifest`.
    """

    row: Mapping[str, Any]
    signature: Mapping[str, Any]
    class_names: Sequence[str] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    units: SignalUnits | None = None


def write_manifest(
    folder: Path,
    artifacts: Sequence[Artifact],
    signature: Signature,
    *,
    lineage: Mapping[str, Any],
    parity: Mapping[str, Parity],
    class_names: Sequence[str] = (),
    serves: Sequence[int] = (),
    units: SignalUnits | None = None,
) -> Path:
    """Write `<folder>/manifest.json` and give its path; it holds no time and no path, so it repeats byte by byte.

    `parity` is by artifact file and knows every one of them; `serves` are the classes that the files are for, where
    other files are for the others; `units` are those of signals. Raises StorageError.
    """
    content = {
        "schema": SCHEMA,
        "signature": signature.to_dict(),
        **({"class_names": list(class_names)} if class_names else {}),
        **({"serves_classes": list(serves)} if serves else {}),
        **({UNITS: units.to_dict()} if units else {}),
        "artifacts": [{**a.to_dict(), "parity": parity[a.file].to_dict()} for a in artifacts],
        "lineage": dict(lineage),
        "tools": tool_versions(),
    }
    path = folder / MANIFEST
    write_json(path, content)
    return path


def tool_versions() -> dict[str, str]:
    """The versions of what made the artifacts; a tool that is not installed is left out."""
    versions = {tool: version_of(tool) for tool in TOOLS}
    return {"python": platform.python_version(), **{tool: number for tool, number in versions.items() if number}}


def checked_entry(path: Path) -> ManifestEntry | None:
    """What the manifest beside an artifact says of it, after both were compared by SHA-256.

    None where no manifest of edgegen's lies there, or it does not list the file. Raises DataError where the file, or
    one that belongs to it, does not hold what was written, and for a manifest that cannot be read.
    """
    manifest = path.parent / MANIFEST
    if not manifest.is_file():
        return None
    content = read_json(manifest)
    if not isinstance(content, dict) or "artifacts" not in content:  # of a web page, for example
        return None
    for entry in _entries(content, manifest):
        if entry.row["file"] == path.name:
            for name, sha256 in _hashes(entry.row):
                if name == path.name or (path.parent / name).exists():  # an .etrecord may have been left behind
                    FileHashes().check(path.parent / name, sha256, record=manifest, remedy=REMEDY)
            return entry
    return None


def rows_of(manifest: Path) -> list[Mapping[str, Any]]:
    """What a manifest says of each of its files, which are not looked at. Raises DataError for one of another shape."""
    return [entry.row for entry in _entries(read_json(manifest), manifest)]


def check_folder(folder: Path) -> list[ManifestEntry]:
    """What the manifest of a folder says of its files, after each was compared by SHA-256.

    Raises DataError that names every file that is missing or does not hold what was written.
    """
    manifest = folder / MANIFEST
    entries = _entries(read_json(manifest), manifest)
    faults = []
    for entry in entries:
        for name, sha256 in _hashes(entry.row):
            try:
                FileHashes().check(folder / name, sha256, record=manifest, remedy=REMEDY)
            except DataError as e:
                faults.append(str(e))
    if faults:
        raise DataError("\n  ".join(["not as exported:", *faults] if len(faults) > 1 else faults))
    return entries


def _entries(content: Any, manifest: Path) -> list[ManifestEntry]:
    """The rows of a manifest. Raises DataError that names the first key that is not as `write_manifest` writes it."""
    if is_of_bundle(content):
        return _entries_of_bundle(bundle_of(content, where=str(manifest)))
    try:
        _Manifest.model_validate_json(json.dumps(content), strict=True)
        check_signature(content["signature"])
    except ValidationError as e:
        first = e.errors()[0]
        raise _malformed(manifest, f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from e
    except ValueError as e:
        raise _malformed(manifest, f"signature: {e}") from e
    names, lineage, tools = (content.get(key, {}) for key in ("class_names", "lineage", "tools"))
    channels = content["signature"]["outputs"][0]["shape"][1:2] or [0]
    units = SignalUnits.of_record(content, channels=channels[0], where=str(manifest))
    return [
        ManifestEntry(row, content["signature"], tuple(names), lineage, tools, units) for row in content["artifacts"]
    ]


def _entries_of_bundle(bundle: Bundle) -> list[ManifestEntry]:
    """What the manifest of an app bundle says of its files, as that of an export says it."""
    hashes = {file.path: file.sha256 for file in bundle.files}
    entries = []
    files = [(row, file) for row in bundle.artifacts for file in (row.students or (row,))]
    for artifact, file in files:
        details = {
            "batch": artifact.batch,
            "heights_widths": [list(size) for size in (artifact.heights_widths or ())[1:]],  # the first is its own
            "inputs": [{"name": spec.name, "shape": list(spec.shape)} for spec in artifact.inputs],
            "extra_files": {name: {"sha256": hashes[name]} for name in file.beside},
        }
        row = {
            "file": file.file,
            "backend": artifact.runtime,
            "scheme": artifact.scheme,
            "variant": artifact.variant,
            "nbytes": file.nbytes,
            "sha256": file.sha256,
            "details": details,
            "parity": artifact.parity.to_dict(),
        }
        signature = bundle.signature.to_dict()
        entries.append(ManifestEntry(row, signature, bundle.class_names, bundle.lineage, bundle.tools))
    return entries


def _hashes(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and hashes of the files of a row: the artifact and what lies beside it."""
    extra = row["details"].get("extra_files", {})
    return [(row["file"], row["sha256"]), *((name, facts["sha256"]) for name, facts in extra.items())]


def _malformed(manifest: Path, reason: str) -> DataError:
    return DataError(f"{manifest}: not a manifest of edgegen's ({reason}); `edgegen export` writes one")
