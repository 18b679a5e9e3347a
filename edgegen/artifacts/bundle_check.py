"""`edgegen verify BUNDLE`: every file against the manifest, and the artifacts against their golden images."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen import registry
from edgegen.artifacts.golden import golden_inputs, images_of, worst_psnr_db
from edgegen.errors import ExportError, MissingExtraError, NoRuntimeError, ParityError
from edgegen.formats.bundle import Bundle, BundledArtifact
from edgegen.formats.bundle_folder import check_bundle
from edgegen.formats.bundle_zip import SUFFIX, unpacked
from edgegen.support.progress import Progress
from edgegen.types import Signature, Status
from edgegen.verification.parity import CAP_DB
from edgegen.verification.session_process import SessionProcess


@dataclass(frozen=True)
class GoldenCheck:
    """One artifact against its golden images: `psnr_db` is of the image that is farthest off; None where none ran."""

    file: str
    sha256: str
    status: Status
    method: str
    floor_db: float
    psnr_db: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.psnr_db is None:
            return f"{self.status}: {self.reason}"
        worst = "equal" if self.psnr_db == CAP_DB else f"{self.psnr_db:.1f} dB at worst"
        return f"{self.status}, {worst}, floor {self.floor_db:.1f} dB ({self.method})"


def verify_bundle(path: Path, *, progress: Progress) -> list[GoldenCheck]:
    """Checks a bundle, a folder or a .zip, whole; gives what each artifact did on its golden images.

    "not checked" is what nothing on this machine runs; "failed" what its runtime refuses, and what makes other images.

    Raises DataError that names every file that is not as written.
    """
    with unpacked(path) if path.suffix.lower() == SUFFIX and not path.is_dir() else nullcontext(path) as folder:
        bundle = check_bundle(folder)
        return _checks(folder, bundle, progress)


def raise_failed(path: Path, checks: Sequence[GoldenCheck]) -> None:
    """Raises ParityError that names the artifacts that failed."""
    failed = [f"{check.file}: {check}" for check in checks if check.status == "failed"]
    if failed:
        raise ParityError("\n  ".join([f"{path}: not the golden images:", *failed]))


def _checks(folder: Path, bundle: Bundle, progress: Progress) -> list[GoldenCheck]:
    inputs = golden_inputs(folder, bundle.signature, bundle.golden.samples, bundle.golden.inputs)
    checks = []
    process = SessionProcess()
    try:
        with progress.task("golden images", len(bundle.artifacts)) as task:
            for number, artifact in enumerate(bundle.artifacts, start=1):
                raw = (folder / artifact.golden.file).read_bytes()
                expected = np.frombuffer(raw, np.uint8).reshape(bundle.golden.shape)
                checks.append(_check(process, folder, artifact, bundle.signature, inputs, expected))
                task.update(number, f"{artifact.file}: {checks[-1]}")
    finally:
        process.close()
    return checks


def _check(
    process: SessionProcess,
    folder: Path,
    artifact: BundledArtifact,
    signature: Signature,
    inputs: dict[str, NDArray[Any]],
    expected: NDArray[np.uint8],
) -> GoldenCheck:
    path, floor_db = folder / artifact.file, artifact.golden.floor_db

    def check(status: Status, method: str = "none", psnr_db: float | None = None, reason: str = "") -> GoldenCheck:
        reason = reason.replace(f"{folder}/", "")
        return GoldenCheck(artifact.file, artifact.sha256, status, method, floor_db, psnr_db, reason)

    if artifact.runtime not in registry.names("backend"):
        return check("not checked", reason=f"nothing here knows the runtime '{artifact.runtime}'")
    try:
        session = process.open(artifact.runtime, path)
        psnr_db = worst_psnr_db(expected, images_of(session, inputs, signature))
    except (NoRuntimeError, MissingExtraError) as e:
        return check("not checked", reason=str(e))
    except ExportError as e:
        return check("failed", reason=str(e))
    method = session.method if session.generate is None else session.generate.method
    return check("ok" if psnr_db >= floor_db else "failed", method, psnr_db)
