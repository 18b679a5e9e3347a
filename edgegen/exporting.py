"""Export what a user brings: fold, build every file, compare each with PyTorch, measure, describe the folder."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.build import MANIFEST, Built, Target, build, write_manifest
from edgegen.card import write_card
from edgegen.errors import EdgegenError, ExportError, ParityError, UsageError
from edgegen.exporters.base import DEFAULTS, LowerOptions
from edgegen.folding import Folded, Folds
from edgegen.models.source import Source, load_sources
from edgegen.ort_pipeline import write_ort_pipeline
from edgegen.progress import Progress
from edgegen.storage import storage_errors
from edgegen.types import Artifact, Latency, Parity, Signature
from edgegen.verification import Verifier

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ExportSettings:
    """What to make of a source. `memory_limit` in bytes is for each child process; `measure` adds host latencies."""

    targets: tuple[Target, ...]
    lower: LowerOptions = DEFAULTS
    calibration: int | None = None
    samples: int = 8
    seed: int = 0
    license: str | None = None
    memory_limit: int | None = None
    measure: bool = True


@dataclass(frozen=True)
class Exported:
    """One source's folder: its files, what folding did, how true and how fast each file is, and what failed."""

    name: str
    folder: Path
    signature: Signature
    about: Mapping[str, Any]
    fold: Folded
    built: Sequence[Built]
    parity: Mapping[str, Parity]
    latency: Mapping[str, Latency]
    failures: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        rows = []
        for one in self.built:
            latency = self.latency.get(one.artifact.file)
            row = {**one.artifact.to_dict(), "parity": self.parity[one.artifact.file].to_dict()}
            row["latency"] = latency.to_dict() if latency else None
            row["about"] = registry.load("backend", one.artifact.backend).variants[one.artifact.variant].about
            row["export"] = {"seconds": one.seconds, "peak_rss_bytes": one.peak_rss_bytes}
            rows.append(row)
        folded = {key: value for key, value in vars(self.fold).items() if key != "module"}
        folded["sentence"] = self.fold.sentence()
        return {
            "name": self.name,
            "folder": str(self.folder),
            "about": dict(self.about),
            "signature": self.signature.to_dict(),
            "fold": folded,
            "artifacts": rows,
            "failures": dict(self.failures),
        }


def export_source(
    source: str,
    output: Path,
    settings: ExportSettings,
    *,
    signature: Path | None = None,
    random_weights: int | None = None,
    fuse_decoder: bool = False,
    progress: Progress,
) -> list[Exported]:
    """Write the files of `source` (see `load_sources`) with manifest.json and README.md into `output`.

    A pipeline's components go to `output/<component>`, with what optimum-onnx needs to load `output` where it has a
    pipeline for it. A target that fails does not stop the others: it is in `failures`. Raises DataError and UsageError
    for a source that cannot be read, ExportError where it cannot be captured or folded.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output} is a file; give a folder, new or with an older export")
    sources = load_sources(source, signature=signature, random_weights=random_weights, fuse_decoder=fuse_decoder)
    exported = []
    for one in sources:
        folder = output / one.name if len(sources) > 1 else output
        with storage_errors(folder):  # before minutes of work
            folder.mkdir(parents=True, exist_ok=True)
        try:
            exported.append(_export(one, folder, settings, progress))
        finally:
            with contextlib.suppress(OSError):  # one with files in it stays
                folder.rmdir()
    if len(sources) > 1 and write_ort_pipeline(Path(source), output, _onnx_files(exported)):
        progress.message(f"{output}: optimum-onnx's ORTDiffusionPipeline loads it, for one step without guidance")
    return exported


def _onnx_files(exported: Sequence[Exported]) -> dict[str, str]:
    """By component, the first of its plain ONNX files that is not known to be false."""
    files: dict[str, str] = {}
    for one in exported:
        for artifact in (built.artifact for built in one.built):
            is_plain = artifact.backend == "onnx" and not artifact.variant
            if is_plain and one.parity[artifact.file].status != "failed":
                files.setdefault(one.name, artifact.file)
    return files


def raise_failures(exported: Sequence[Exported]) -> None:
    """Raises ExportError for targets that were not made, else ParityError for files that are not true."""
    failures = [f"{one.name} {target}: {text}" for one in exported for target, text in one.failures.items()]
    if failures:
        raise ExportError("not exported:\n  " + "\n  ".join(failures))
    wrong = [
        f"{file}: {parity.reason}"
        for one in exported
        for file, parity in one.parity.items()
        if parity.status == "failed"
    ]
    if wrong:
        raise ParityError("not the same as PyTorch:\n  " + "\n  ".join(wrong))


def _export(source: Source, folder: Path, settings: ExportSettings, progress: Progress) -> Exported:
    with progress.task(f"{source.name}: fold", 1) as task:
        folds = Folds(source.module, source.signature)
        folded = folds()
        task.update(1, folded.sentence())
    about = {**source.about, "license": settings.license or source.about.get("license") or "not stated"}
    sizes = settings.lower.heights_widths
    verify = Verifier(folds, source.signature, samples=settings.samples, seed=settings.seed, sizes=sizes)
    built: list[Built] = []
    parity: dict[str, Parity] = {}
    failures: dict[str, str] = {}
    with progress.task(f"{source.name}: export", len(settings.targets)) as task:
        for number, target in enumerate(settings.targets):
            task.update(number, str(target))
            try:
                module = folds(any_size=target.kind().any_size).module
                one = _build(module, source, about, folder, target=target, settings=settings)
            except EdgegenError as e:
                failures[str(target)] = str(e)
                task.update(number + 1, f"{target}: {e}")
                continue
            built.append(one)
            found, _ = verify(one.artifact, folder / one.artifact.file)
            parity[one.artifact.file] = found
            note = found.status if found.psnr_db is None else f"{found.status}, {found.psnr_db:.1f} dB"
            task.update(number + 1, f"{one.artifact.file}: {one.artifact.nbytes / 1e6:.2f} MB, {note}")
    artifacts = [one.artifact for one in built]
    lineage = {"source": source.name, **about}
    if built:
        write_manifest(folder, artifacts, source.signature, lineage=lineage, parity=parity)
    latency = _measure(artifacts, folder, parity, progress) if settings.measure else {}
    exported = Exported(source.name, folder, source.signature, about, folded, built, parity, latency, failures)
    if built:
        write_card(folder, exported.to_dict())
    return exported


def _build(
    module: "nn.Module",
    source: Source,
    about: Mapping[str, Any],
    folder: Path,
    target: Target,
    settings: ExportSettings,
) -> Built:
    metadata = {"license": str(about["license"]), "family": str(about["family"])}
    return build(
        module,
        source.signature,
        name=source.name,
        target=target,
        folder=folder,
        calibration_samples=settings.calibration,
        seed=settings.seed,
        metadata=metadata,
        options=settings.lower,
        memory_limit=settings.memory_limit,
    )


def _measure(
    artifacts: Sequence[Artifact], folder: Path, parity: Mapping[str, Parity], progress: Progress
) -> dict[str, Latency]:
    from edgegen.profilers.host import Job, ProfileOptions, measure

    jobs = []
    latency: dict[str, Latency] = {}
    for artifact in artifacts:
        found = parity[artifact.file]
        if found.status != "ok" or "evaluator" in found.method:
            reason = "no runtime for it here" if found.status == "ok" else f"parity {found.status}"
            latency[artifact.file] = Latency(None, reason=f"not measured: {reason}")
            continue
        arguments = {
            "backend": artifact.backend,
            "path": str(folder / artifact.file),
            "manifest": str(folder / MANIFEST),
        }
        jobs.append(Job(artifact.file, "edgegen.openers:artifact", arguments))
    measured = measure(jobs, options=ProfileOptions(), progress=progress) if jobs else {}
    return latency | measured
