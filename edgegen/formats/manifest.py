"""manifest.json beside the exported files: what they take and give, how true they are, and what made them."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgegen.support.extras import version_of
from edgegen.support.storage import write_json
from edgegen.types import Artifact, Parity, Signature

MANIFEST = "manifest.json"
SCHEMA = "edgegen.manifest/1"
TOOLS = ("edgegen", "torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "executorch", "torchao", "coremltools")


def write_manifest(
    folder: Path,
    artifacts: Sequence[Artifact],
    signature: Signature,
    *,
    lineage: Mapping[str, Any],
    parity: Mapping[str, Parity],
) -> Path:
    """Write `<folder>/manifest.json` and give its path; it holds no time and no path, so it repeats byte by byte.

    `parity` is by artifact file and knows every one of them. Raises StorageError.
    """
    content = {
        "schema": SCHEMA,
        "signature": signature.to_dict(),
        "artifacts": [{**a.to_dict(), "parity": parity[a.file].to_dict()} for a in artifacts],
        "lineage": dict(lineage),
        "tools": tool_versions(),
    }
    path = folder / MANIFEST
    write_json(path, content)
    return path


def tool_versions() -> dict[str, str]:
    """The versions of what made the artifacts; a tool that is not installed is left out."""
    found = {tool: version_of(tool) for tool in TOOLS}
    return {"python": platform.python_version(), **{tool: number for tool, number in found.items() if number}}
