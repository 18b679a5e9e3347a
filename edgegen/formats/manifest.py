"""manifest.json beside the exported files: what they take and give, how true they are, and what made them."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegen.errors import DataError
from edgegen.formats.file_hashes import FileHashes
from edgegen.support.extras import version_of
from edgegen.support.storage import read_json, write_json
from edgegen.types import Artifact, Parity, Signature

MANIFEST = "manifest.json"
SCHEMA = "edgegen.manifest/1"
TOOLS = ("edgegen", "torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "executorch", "torchao", "coremltools")
REMEDY = "export it again, or copy it again if it came from elsewhere"


@dataclass(frozen=True)
class ManifestEntry:
    """What manifest.json says of one file: `row` of that file, with its parity; `signature` of all of them.

    `class_names` are those of the classes 0, 1, ..., () where nothing knows them.
    """

    row: Mapping[str, Any]
    signature: Mapping[str, Any]
    class_names: Sequence[str] = ()


def write_manifest(
    folder: Path,
    artifacts: Sequence[Artifact],
    signature: Signature,
    *,
    lineage: Mapping[str, Any],
    parity: Mapping[str, Parity],
    class_names: Sequence[str] = (),
) -> Path:
    """Write `<folder>/manifest.json` and give its path; it holds no time and no path, so it repeats byte by byte.

    `parity` is by artifact file and knows every one of them. Raises StorageError.
    """
    content = {
        "schema": SCHEMA,
        "signature": signature.to_dict(),
        **({"class_names": list(class_names)} if class_names else {}),
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
    for row in _rows(content, manifest):
        if row["file"] == path.name:
            for name, sha256 in _hashes(row, manifest):
                if name == path.name or (path.parent / name).exists():  # an .etrecord may have been left behind
                    FileHashes().check(path.parent / name, sha256, record=manifest, remedy=REMEDY)
            return _entry(row, content)
    return None


def rows_of(manifest: Path) -> list[Mapping[str, Any]]:
    """What a manifest says of each of its files, unchecked. Raises DataError for one that cannot be read."""
    content = read_json(manifest)
    if not isinstance(content, dict):
        raise _malformed(manifest)
    return list(_rows(content, manifest))


def check_folder(folder: Path) -> list[ManifestEntry]:
    """What the manifest of a folder says of its files, after each was compared by SHA-256.

    Raises DataError that names every file that is missing or does not hold what was written.
    """
    manifest = folder / MANIFEST
    content = read_json(manifest)
    if not isinstance(content, dict):
        raise _malformed(manifest)
    rows = list(_rows(content, manifest))
    faults = []
    for row in rows:
        for name, sha256 in _hashes(row, manifest):
            try:
                FileHashes().check(folder / name, sha256, record=manifest, remedy=REMEDY)
            except DataError as e:
                faults.append(str(e))
    if faults:
        raise DataError("\n  ".join(["not as exported:", *faults] if len(faults) > 1 else faults))
    return [_entry(row, content) for row in rows]


def _entry(row: Mapping[str, Any], content: Mapping[str, Any]) -> ManifestEntry:
    names = content.get("class_names")
    class_names = names if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
    return ManifestEntry(row, content.get("signature", {}), class_names)


def _rows(content: Mapping[str, Any], manifest: Path) -> Iterator[Mapping[str, Any]]:
    rows = content.get("artifacts")
    if not isinstance(rows, list):
        raise _malformed(manifest)
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("file"), str):
            raise _malformed(manifest)
        yield row


def _hashes(row: Mapping[str, Any], manifest: Path) -> list[tuple[str, str]]:
    """Names and hashes of the files of a row: the artifact and what lies beside it."""
    try:
        extra = row.get("details", {}).get("extra_files", {})
        hashes = [(row["file"], row["sha256"]), *((name, facts["sha256"]) for name, facts in extra.items())]
    except (KeyError, TypeError, AttributeError) as e:
        raise _malformed(manifest) from e
    if any(Path(name).name != name for name, _ in hashes):
        raise _malformed(manifest)
    return hashes


def _malformed(manifest: Path) -> DataError:
    return DataError(f"{manifest}: not a manifest of edgegen's; `edgegen export` writes one")
