"""One artifact from one generator: capture, quantize, lower, and a manifest of what came out."""

import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.exporters.base import Backend
from edgegen.extras import version_of
from edgegen.parity import not_checked
from edgegen.quantize.calibrate import Batches, calibration_batches
from edgegen.quantize.matrix import Cell, cell
from edgegen.storage import atomic_path, nbytes_of, sha256_of, write_json
from edgegen.types import Artifact, Parity, Signature

if TYPE_CHECKING:
    from torch import nn

MANIFEST = "manifest.json"
SCHEMA = "edgegen.manifest/1"
CALIBRATION_BATCH = 32  # where the batch axis is dynamic
TOOLS = ("edgegen", "torch", "onnx", "onnxscript", "onnxruntime", "executorch", "torchao", "coremltools")


def build(
    module: "nn.Module",
    signature: Signature,
    *,
    name: str,
    backend: str,
    scheme: str,
    folder: Path,
    calibration_samples: int,
    seed: int,
    metadata: Mapping[str, str],
) -> Artifact:
    """Write `<folder>/<name>_<backend>_<scheme><suffix>` for a folded one-step `module`, replacing an older one.

    `metadata` goes into the file under edgegen's namespace, with name, backend and scheme added. Raises UsageError for
    an unknown backend or empty cell, ExportError where a vendor's tool fails, StorageError where the disk refuses.
    """
    target: Backend = registry.load("backend", backend)
    chosen = cell(scheme, backend)
    file = f"{name}_{backend}_{scheme}{target.suffix}"
    calibration: Batches = []
    if chosen.stage != "float":
        batch = target.batch or CALIBRATION_BATCH
        calibration = calibration_batches(signature, samples=calibration_samples, seed=seed, batch=batch)
    about = {**metadata, "name": name, "backend": backend, "scheme": scheme}
    with atomic_path(folder / file) as path:
        _make(module, signature, path, target=target, chosen=chosen, calibration=calibration, metadata=about)
    return Artifact(
        file=file,
        backend=backend,
        scheme=scheme,
        nbytes=nbytes_of(folder / file),
        sha256=sha256_of(folder / file),
        engine=chosen.engine,
        details={
            "batch": target.batch,
            "precision": chosen.precision,
            "calibration_samples": calibration_samples if calibration else 0,
        },
    )


def _make(
    module: "nn.Module",
    signature: Signature,
    path: Path,
    *,
    target: Backend,
    chosen: Cell,
    calibration: Batches,
    metadata: Mapping[str, str],
) -> None:
    from edgegen.capture import capture  # here, so that a mistyped cell answers before torch is imported

    if chosen.stage == "module":
        module = chosen.load()(module, calibration)
    program = capture(module, signature, batch=target.batch)
    if chosen.stage == "program":
        program = chosen.load()(program, calibration)
    if chosen.stage != "file":
        target.lower(program, path, signature=signature, precision=chosen.precision, metadata=metadata)
        return
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        floating = Path(temporary) / f"float{target.suffix}"
        target.lower(program, floating, signature=signature, precision=chosen.precision, metadata=metadata)
        chosen.load()(floating, path, calibration)


def write_manifest(
    folder: Path,
    artifacts: Sequence[Artifact],
    signature: Signature,
    *,
    lineage: Mapping[str, Any],
    parity: Mapping[str, Parity],
) -> Path:
    """Write `<folder>/manifest.json` and give its path; it holds no time and no path, so it repeats byte by byte.

    `parity` is by artifact file; one that is not in it is recorded as "not checked". Raises StorageError.
    """
    content = {
        "schema": SCHEMA,
        "signature": signature.to_dict(),
        "artifacts": [{**a.to_dict(), "parity": _parity(a, parity).to_dict()} for a in artifacts],
        "lineage": dict(lineage),
        "tools": tool_versions(),
    }
    path = folder / MANIFEST
    write_json(path, content)
    return path


def _parity(artifact: Artifact, parity: Mapping[str, Parity]) -> Parity:
    return parity.get(artifact.file) or not_checked(
        "nothing ran this file", cell(artifact.scheme, artifact.backend).floor_db
    )


def tool_versions() -> dict[str, str]:
    """The versions of what made the artifacts; a tool that is not installed is left out."""
    found = {tool: version_of(tool) for tool in TOOLS}
    return {"python": platform.python_version(), **{tool: number for tool, number in found.items() if number}}
