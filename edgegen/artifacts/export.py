"""Export what a user brings: fold, build every file, compare each with PyTorch, measure, describe the folder."""

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.artifacts.build import Built, build
from edgegen.artifacts.model_card import write_card
from edgegen.artifacts.relative_latency import Race
from edgegen.artifacts.target import Target, backends_of, runs_here
from edgegen.errors import BudgetError, EdgegenError, ExportError, ParityError, UsageError
from edgegen.exporters.base import DEFAULTS, LowerOptions
from edgegen.formats.manifest import MANIFEST, write_manifest
from edgegen.integrations.optimum_onnx import write_ort_pipeline
from edgegen.models.sources.load import Source, load_sources
from edgegen.program.fold import Folded, Folds
from edgegen.quantize.budget import Budget
from edgegen.quantize.schemes import AS_USUAL, GRIDS, QuantizeOptions
from edgegen.recipe import Method, Recover
from edgegen.support.progress import Progress
from edgegen.support.storage import storage_errors
from edgegen.types import Artifact, Latency, Parity, Signature
from edgegen.verification.verify import Verifier

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ExportSettings:
    """What to make of a source. `memory_limit` in bytes is for each child process; `measure` adds host latencies.

    `methods` and `recover` change the weights of every scheme that has a grid; `budget` chooses the float layers of
    mixed files.
    """

    targets: tuple[Target, ...]
    lower: LowerOptions = DEFAULTS
    quantization: QuantizeOptions = AS_USUAL
    methods: tuple[Method, ...] = ()
    recover: Recover | None = None
    budget: Budget | None = None
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
    failures: Mapping[str, EdgegenError]
    over_budget: Mapping[str, Sequence[str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        rows = []
        for one in self.built:
            latency = self.latency.get(one.artifact.file)
            row = {**one.artifact.to_dict(), "parity": self.parity[one.artifact.file].to_dict()}
            row["latency"] = latency.to_dict() if latency else None
            row["over_budget"] = list(self.over_budget.get(one.artifact.file, ()))
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
            "failures": {target: str(error) for target, error in self.failures.items()},
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
            with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
                exported.append(_export(one, folder, Path(temporary), settings, progress))
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
    """Raises ExportError for targets not made, ParityError for files not true, BudgetError for files over budget."""
    failures = [(f"{one.name} {target}", error) for one in exported for target, error in one.failures.items()]
    if failures:
        kind = BudgetError if all(isinstance(error, BudgetError) for _, error in failures) else ExportError
        raise kind("not exported:\n  " + "\n  ".join(f"{what}: {error}" for what, error in failures))
    wrong = [
        f"{file}: {parity.reason}"
        for one in exported
        for file, parity in one.parity.items()
        if parity.status == "failed"
    ]
    if wrong:
        raise ParityError("not the same as PyTorch:\n  " + "\n  ".join(wrong))
    broken = [
        f"{one.name}: {file}: {'; '.join(what)}" for one in exported for file, what in one.over_budget.items() if what
    ]
    if broken:
        raise BudgetError("the budget is not kept:\n  " + "\n  ".join(broken))


def _export(source: Source, folder: Path, temporary: Path, settings: ExportSettings, progress: Progress) -> Exported:
    with progress.task(f"{source.name}: fold", 1) as task:
        folds = Folds(source.module, source.signature)
        folded = folds()
        task.update(1, folded.sentence())
    about = {**source.about, "license": settings.license or source.about.get("license") or "not stated"}
    sizes = settings.lower.heights_widths
    verify = Verifier(folds, source.signature, samples=settings.samples, seed=settings.seed, sizes=sizes)
    race = Race(
        folds,
        folder=temporary,
        options=settings.lower,
        seed=settings.seed,
        memory_limit=settings.memory_limit,
        progress=progress,
    )
    ready = _Ready(folds, source, settings, race, progress)
    built: list[Built] = []
    parity: dict[str, Parity] = {}
    failures: dict[str, EdgegenError] = {}
    with progress.task(f"{source.name}: export", len(settings.targets)) as task:
        for number, target in enumerate(settings.targets):
            task.update(number, str(target))
            try:
                module, numbers = ready(target.scheme, any_size=target.kind().any_size)
                one = _build(module, numbers, source, about, folder, target=target, settings=settings)
            except EdgegenError as e:
                failures[str(target)] = e
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
    over = _over_budget(artifacts, folder, parity, ready, folded)
    exported = Exported(source.name, folder, source.signature, about, folded, built, parity, latency, failures, over)
    if built:
        write_card(folder, exported.to_dict())
    return exported


def _over_budget(
    artifacts: Sequence[Artifact], folder: Path, parity: Mapping[str, Parity], ready: "_Ready", folded: Folded
) -> dict[str, list[str]]:
    """By file, what it does not keep of the budget."""
    settings = ready.settings
    if settings.budget is None:
        return {}
    from edgegen.artifacts.budget import Budgeted

    budgeted = Budgeted(
        settings.budget,
        ready.source.signature,
        ready,
        parameters=folded.parameters_after,
        race=ready.race,
        seed=settings.seed,
        progress=ready.progress,
    )
    return {one.file: budgeted.broken(one, folder / one.file, parity[one.file]) for one in artifacts}


class _Ready:
    """What a target is built from: the folded generator, or for some schemes what `refine` made of it, once each."""

    def __init__(self, folds: Folds, source: Source, settings: ExportSettings, race: Race, progress: Progress) -> None:
        self.folds, self.source, self.settings, self.race, self.progress = folds, source, settings, race, progress
        self.made: dict[str, tuple[nn.Module, QuantizeOptions] | EdgegenError] = {}

    def __call__(self, scheme: str, *, any_size: bool = False) -> "tuple[nn.Module, QuantizeOptions]":
        settings = self.settings
        if scheme not in GRIDS or not (settings.recover or settings.methods or scheme == "mixed"):
            return self.folds(any_size=any_size).module, settings.quantization
        if scheme not in self.made:
            try:
                self.made[scheme] = self._refined(scheme)
            except EdgegenError as e:  # for every file of the scheme
                self.made[scheme] = e
        made = self.made[scheme]
        if isinstance(made, EdgegenError):
            raise made
        return made

    def _refined(self, scheme: str) -> "tuple[nn.Module, QuantizeOptions]":
        from edgegen.artifacts.refine import refine

        settings = self.settings
        with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
            refined = refine(
                self.folds().module,
                self.source.signature,
                scheme,
                options=settings.quantization,
                methods=settings.methods,
                recover=settings.recover,
                budget=settings.budget,
                race=self.race,
                backends=backends_of(scheme, settings.targets),
                seed=settings.seed,
                folder=Path(temporary),
                progress=self.progress,
            )
        return refined.program.module(check_guards=False), refined.options


def _build(
    module: "nn.Module",
    numbers: QuantizeOptions,
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
        seed=settings.seed,
        metadata=metadata,
        quantization=numbers,
        options=settings.lower,
        memory_limit=settings.memory_limit,
    )


def _measure(
    artifacts: Sequence[Artifact], folder: Path, parity: Mapping[str, Parity], progress: Progress
) -> dict[str, Latency]:
    from edgegen.profilers.timing.jobs import Job
    from edgegen.profilers.timing.protocol import ProfileOptions, measure

    jobs = []
    latency: dict[str, Latency] = {}
    for artifact in artifacts:
        found = parity[artifact.file]
        if found.status != "ok" or not runs_here(artifact.backend):
            reason = "no runtime for it here" if found.status == "ok" else f"parity {found.status}"
            latency[artifact.file] = Latency(None, reason=f"not measured: {reason}")
            continue
        arguments = {
            "backend": artifact.backend,
            "path": str(folder / artifact.file),
            "manifest": str(folder / MANIFEST),
        }
        jobs.append(Job(artifact.file, "edgegen.artifacts.sessions:artifact", arguments))
    measured = measure(jobs, options=ProfileOptions(), progress=progress) if jobs else {}
    return latency | measured
