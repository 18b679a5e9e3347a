"""One artifact from one generator: capture; in a child process quantize, rewrite and lower; the artifact's record."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.artifacts.target import Target, interface
from edgegen.exporters.base import DEFAULTS, Backend
from edgegen.program.inputs import InputSource, RealInputs
from edgegen.quantize.calibration import enough_samples
from edgegen.quantize.schemes import DEFAULT_OPTIONS
from edgegen.quantize.support_matrix import cell
from edgegen.recipe import Export, Quantize
from edgegen.support import isolation
from edgegen.support.children import Children
from edgegen.support.isolation import Child
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import atomic_path, nbytes_of, save_tensors, sha256_of
from edgegen.types import Artifact, Parity, Signature

if TYPE_CHECKING:
    from torch import nn

    from edgegen.program.generator import SavedProgram

LOWER, PRELOAD = "edgegen.artifacts.lower:lower", "edgegen.artifacts.lower:preload"


@dataclass(frozen=True)
class BuildInput:
    """What the files of one scheme are made from: `module` computes what the saved `program` does."""

    program: "SavedProgram"
    module: "nn.Module"
    quantization: Quantize


@dataclass(frozen=True)
class BuildResult:
    """An artifact, and the time and memory of its making, which are not in the manifest: that is reproducible."""

    artifact: Artifact
    seconds: float
    peak_rss_bytes: int | None


def build(
    source: "nn.Module | SavedProgram",
    signature: Signature,
    *,
    name: str,
    target: Target,
    folder: Path,
    seed: int,
    metadata: Mapping[str, str],
    quantization: Quantize = DEFAULT_OPTIONS,
    options: Export = DEFAULTS,
    real: RealInputs | None = None,
    rewrites: Sequence[str] | None = None,
    memory_limit: int | None = None,
    children: Children | None = None,
) -> BuildResult:
    """Write the file of a folded generator into `folder`, by the vendor's tools in a child process.

    Args:
        source: the folded generator, or its saved program; of any size for a variant of any size.
        signature: of its inputs and output.
        name: first part of the file's name.
        target: runtime, scheme and variant.
        folder: where the file goes.
        seed: draws the inputs of the calibration.
        metadata: goes into the file under edgegen's namespace, with name, backend and scheme added.
        quantization: how the numbers are chosen.
        options: of the file itself: opset, oldest system, sizes.
        real: inputs that the user gave.
        rewrites: names of edgegen.exporters.rewrites; None takes the backend's own.
        memory_limit: bytes that the child process may hold; None: no limit.
        children: processes of which one does the work; None starts one for it.

    Returns:
        The artifact's record, and the seconds and memory that it took.

    Raises:
        UsageError, ExportError, StorageError: an empty cell or an unknown layer; a vendor's tool failed; the disk did.
    """
    inputs, file = InputSource(signature, seed, real), target.file(name)
    with temporary_folder() as temporary:
        saved = _saved_program(source, signature, target, Path(temporary) / "program.pt2")
        (output := Path(temporary) / "output").mkdir()
        job = {
            "program": str(saved.path),
            "unfolded": saved.unfolded,
            "signature": signature.to_dict(),
            "target": asdict(target),
            "path": str(output / file),
            "metadata": _metadata(metadata, name, target),
            "options": options.model_dump(mode="json"),
            "rewrites": _rewrites(target) if rewrites is None else list(rewrites),
            **_calibration(inputs, target, quantization, Path(temporary) / "calibration.safetensors"),
        }
        keep = memory_limit is None  # what one file leaves behind in the process must not count for the next one
        with nullcontext() if children is None else lowering(children, target, keep=keep) as child:
            outcome = isolation.call(LOWER, job, memory_limit=memory_limit, child=child, doing=f"made {file}")
        extra = _move_files(output, folder, file)
    facts = _file_facts(target, options, job["quantization"]["samples"] or 0, inputs, outcome.value)
    return BuildResult(_artifact(folder, target, file, extra, facts), outcome.seconds, outcome.peak_rss_bytes)


def lowering(children: Children, target: Target, *, keep: bool = True) -> AbstractContextManager[Child]:
    """A process that has the tools of the target's vendor; one that is taken and not used imports them meanwhile."""
    return children.child(PRELOAD, keep=keep, name=target.backend)


def _calibration_samples(inputs: InputSource, target: Target, quantization: Quantize) -> int:
    if not target.cell().calibrated:
        return 0
    return inputs.calibration_count(quantization.samples or enough_samples(inputs.signature))


def _calibration(inputs: InputSource, target: Target, quantization: Quantize, path: Path) -> dict[str, Any]:
    """What the child quantizes with: options, seed, and the file `path` of real inputs where there are some."""
    samples = _calibration_samples(inputs, target, quantization)
    real = inputs.real if samples or target.is_float16() else None
    if real is not None:
        save_tensors(path, real.calibration)
    return {
        "quantization": {**quantization.model_dump(mode="json"), "samples": samples or None},
        "seed": inputs.seed,
        "calibration": None if real is None else str(path),
    }


def _rewrites(target: Target) -> list[str]:
    backend: Backend = registry.load("backend", target.backend)
    return list(backend.rewrites)


def _metadata(metadata: Mapping[str, str], name: str, target: Target) -> dict[str, str]:
    """The metadata of the file: the caller's, with name, backend, scheme and precision added."""
    scheme_cell = target.cell()
    precision = scheme_cell.precision if scheme_cell.stage == "float" else target.scheme
    return {**metadata, "name": name, "backend": target.backend, "scheme": target.scheme, "precision": precision}


def _saved_program(
    source: "nn.Module | SavedProgram", signature: Signature, target: Target, path: Path
) -> "SavedProgram":
    # Imported here: a mistyped cell is reported before torch is imported.
    from edgegen.program.capture import capture
    from edgegen.program.generator import SavedProgram, save_program

    if isinstance(source, SavedProgram):
        return source
    kind = target.kind()
    # Calibration runs whole batches, whatever batch the file takes.
    batch = None if target.cell().stage == "program" else kind.batch
    return save_program(capture(source, signature, batch=batch, any_size=kind.any_size), path)


def _move_files(output: Path, folder: Path, file: str) -> dict[str, dict[str, Any]]:
    """Moves the child's files into `folder`; returns size and SHA-256 of all but the artifact `file` itself."""
    extra: dict[str, dict[str, Any]] = {
        path.name: {"nbytes": nbytes_of(path), "sha256": sha256_of(path)}
        for path in sorted(output.iterdir())
        if path.name != file
    }
    for name in (*extra, file):  # the artifact last: where it exists, its extra files do
        with atomic_path(folder / name) as path:
            shutil.move(output / name, path)
    return extra


def _file_facts(
    target: Target, options: Export, samples: int, inputs: InputSource, outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """The `details` of an artifact, without the files beside it."""
    variant, scheme_cell = target.kind(), target.cell()
    cautions = [scheme_cell.caution] if scheme_cell.caution else []
    if samples and inputs.synthetic:
        cautions.append(f"calibrated on synthetic values of {', '.join(inputs.synthetic)}; give real ones by --inputs")
    facts = dict(outcome)
    if overflow := facts.pop("overflow", ""):
        cautions.append(f'{overflow}: devices may overflow; [export] fp16 = "safe" leaves these in float32')
    return {
        "batch": variant.batch,
        "precision": scheme_cell.precision,
        "calibration_samples": samples,
        **interface(target, inputs.signature, options),
        **({"caution": "; ".join(cautions)} if cautions else {}),
        **facts,
        **({"heights_widths": list(options.heights_widths)} if variant.lists_sizes else {}),
    }


def _artifact(
    folder: Path, target: Target, file: str, extra: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]
) -> Artifact:
    return Artifact(
        file=file,
        backend=target.backend,
        scheme=target.scheme,
        nbytes=nbytes_of(folder / file) + extra.get(f"{file}.data", {}).get("nbytes", 0),
        sha256=sha256_of(folder / file),
        engine=target.cell().engine,
        variant=target.variant,
        details={**facts, "extra_files": extra},
    )


def unchecked(artifacts: Sequence[Artifact]) -> dict[str, Parity]:
    """By file, the parity in a manifest of files that nothing has run yet."""
    floors = {
        artifact.file: cell(artifact.scheme, artifact.backend, artifact.variant).floor_db for artifact in artifacts
    }
    return {file: Parity.not_checked("nothing ran this file", floor_db) for file, floor_db in floors.items()}
