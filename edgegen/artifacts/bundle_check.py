"""`edgegen verify BUNDLE`: every file against the manifest, and the artifacts against their golden images."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen import registry
from edgegen.artifacts.bundle_students import run_artifact
from edgegen.artifacts.bundle_text import PromptInputs
from edgegen.artifacts.golden import golden_inputs, worst_psnr_db
from edgegen.artifacts.tokenizer import library_version, tokenized
from edgegen.errors import DataError, ExportError, MissingExtraError, NoRuntimeError, ParityError
from edgegen.formats.bundle import Bundle, BundledArtifact
from edgegen.formats.bundle_folder import check_bundle
from edgegen.formats.bundle_text import TextInput
from edgegen.formats.bundle_zip import SUFFIX, unpacked
from edgegen.support.progress import Progress
from edgegen.types import Signature, Status
from edgegen.verification.parity import CAP_DB
from edgegen.verification.session_process import SessionProcess


@dataclass(frozen=True)
class GoldenCheck:
    """One artifact against its golden images: `psnr_db` is of the image that is farthest off; None where none ran.

    Of a tokenizer it is None as well: `reason` says whether it gives the token numbers of the golden prompts.
    """

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
    samples, text, signature = bundle.golden.samples, bundle.text, bundle.signature
    inputs = golden_inputs(folder, signature, samples, bundle.golden.inputs, text=None if text is None else text.input)
    checks = [] if text is None else [_check_tokens(folder, text, bundle)]
    process = SessionProcess()

    def inputs_of(artifact: BundledArtifact) -> Mapping[str, NDArray[Any]]:
        if text is None:
            return inputs
        given = PromptInputs(folder, text, bundle.golden.prompts, samples, signature, inputs)
        return given.of(artifact.text_encoder, process)

    try:
        with progress.task("golden images", len(bundle.artifacts)) as task:
            for number, artifact in enumerate(bundle.artifacts, start=1):
                raw = (folder / artifact.golden.file).read_bytes()
                expected = np.frombuffer(raw, np.uint8).reshape(bundle.golden.shape)
                checks.append(_check(process, folder, artifact, signature, inputs_of, expected))
                task.update(number, f"{artifact.file}: {checks[-1]}")
    finally:
        process.close()
    return checks


def _check_tokens(folder: Path, text: TextInput, bundle: Bundle) -> GoldenCheck:
    """Whether the tokenizer gives the token numbers of the golden prompts."""
    tokenizer, prompts = text.tokenizer, bundle.golden.prompts
    (sha256,) = (file.sha256 for file in bundle.files if file.path == tokenizer.file)

    def check(status: Status, reason: str, method: str = "none") -> GoldenCheck:
        return GoldenCheck(tokenizer.file, sha256, status, method, floor_db=0.0, reason=reason)

    try:
        again = tokenized(folder / tokenizer.file, tokenizer, [prompt.text for prompt in prompts])
    except MissingExtraError as e:
        return check("not checked", str(e))
    except DataError as e:
        return check("failed", str(e).replace(f"{folder}/", ""))
    wrong = [prompt.text for prompt, other in zip(prompts, again, strict=True) if prompt != other]
    if wrong:
        return check("failed", f"gives other token numbers for {', '.join(map(repr, wrong))}", library_version())
    return check("ok", f"the token numbers of {len(prompts)} prompts, by {library_version()}", library_version())


def _check(
    process: SessionProcess,
    folder: Path,
    artifact: BundledArtifact,
    signature: Signature,
    inputs_of: Callable[[BundledArtifact], Mapping[str, NDArray[Any]]],
    expected: NDArray[np.uint8],
) -> GoldenCheck:
    path, floor_db = folder / artifact.file, artifact.golden.floor_db

    def check(status: Status, method: str = "none", psnr_db: float | None = None, reason: str = "") -> GoldenCheck:
        reason = reason.replace(f"{folder}/", "")
        return GoldenCheck(artifact.file, artifact.sha256, status, method, floor_db, psnr_db, reason)

    if artifact.runtime not in registry.names("backend"):
        return check("not checked", reason=f"nothing here knows the runtime '{artifact.runtime}'")
    try:
        inputs = inputs_of(artifact)
        images, session = run_artifact(process, path, artifact.runtime, artifact.students, inputs, signature)
        psnr_db = worst_psnr_db(expected, images)
    except (NoRuntimeError, MissingExtraError) as e:
        return check("not checked", reason=str(e))
    except ExportError as e:
        return check("failed", reason=str(e))
    best = session.further.get("generate", session)
    return check("ok" if psnr_db >= floor_db else "failed", best.method, psnr_db)
