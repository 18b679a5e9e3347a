"""Export what a user brings: fold, build every file, compare each with PyTorch, measure, describe the folder."""

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegen import registry
from edgegen.artifacts.budget import BudgetCheck
from edgegen.artifacts.build import BuildResult
from edgegen.artifacts.maker import BuildInput, Maker
from edgegen.artifacts.model_card import write_card
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.target import Target, backends_of, runs_here
from edgegen.errors import BudgetError, EdgegenError, ExportError, ParityError, UsageError
from edgegen.formats.manifest import write_manifest
from edgegen.integrations.optimum_onnx import write_ort_pipeline
from edgegen.models.sources.load import Source, load_sources
from edgegen.program.fold import Folded
from edgegen.program.generator import Generator, save_program
from edgegen.quantize.budget import Budget
from edgegen.quantize.schemes import GRIDS
from edgegen.recipe import Export as Export
from edgegen.recipe import Quantize, Recover
from edgegen.support.progress import Progress
from edgegen.support.storage import storage_errors
from edgegen.types import Artifact, Latency, Parity, Signature
from edgegen.verification.verify import Verifier

EXPORT, QUANTIZE = Export(), Quantize()


@dataclass(frozen=True)
class ExportSettings:
    """What to make of a source: `targets` in place of the artifacts of `export`, and three tables of a recipe.

    `memory_limit` in bytes is for each child process; `measure` adds host latencies.
    """

    targets: tuple[Target, ...]
    export: Export = EXPORT
    quantize: Quantize = QUANTIZE
    recover: Recover | None = None
    samples: int = 8
    seed: int = 0
    memory_limit: int | None = None
    measure: bool = True


@dataclass(frozen=True)
class ExportResult:
    """One source's folder: its files, what folding did, how true and how fast each file is, and what failed."""

    name: str
    folder: Path
    signature: Signature
    about: Mapping[str, Any]
    fold: Folded
    built: Sequence[BuildResult]
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
        folded = {**self.fold.facts(), "sentence": self.fold.sentence()}
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
) -> list[ExportResult]:
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


def _onnx_files(exported: Sequence[ExportResult]) -> dict[str, str]:
    """By component, the first of its plain ONNX files that is not known to be false."""
    files: dict[str, str] = {}
    for one in exported:
        for artifact in (built.artifact for built in one.built):
            is_plain = artifact.backend == "onnx" and not artifact.variant
            if is_plain and one.parity[artifact.file].status != "failed":
                files.setdefault(one.name, artifact.file)
    return files


def raise_failures(exported: Sequence[ExportResult]) -> None:
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


def _export(
    source: Source, folder: Path, temporary: Path, settings: ExportSettings, progress: Progress
) -> ExportResult:
    license_name = settings.export.license
    if license_name == EXPORT.license:
        license_name = source.about.get("license") or license_name
    about = {**source.about, "license": license_name}
    generator = Generator(source.module, source.signature)
    race = RelativeLatency(
        generator,
        folder=temporary,
        options=settings.export,
        seed=settings.seed,
        memory_limit=settings.memory_limit,
        progress=progress,
    )
    maker = Maker(
        generator,
        name=source.name,
        metadata={"license": str(license_name), "family": str(about["family"])},
        options=settings.export,
        quantization=settings.quantize,
        refined=_Refiner(generator, settings, race, temporary, progress),
        seed=settings.seed,
        memory_limit=settings.memory_limit,
        progress=progress,
    )
    built, parity, failures = _make(maker, folder, settings, progress)
    artifacts = [made.artifact for made in built]
    if built:
        lineage = {"source": source.name, **about}
        write_manifest(folder, artifacts, source.signature, lineage=lineage, parity=parity)
    latency = _measure(artifacts, folder, parity, progress) if settings.measure else {}
    over = _over_budget(artifacts, folder, parity, maker, race, settings, progress)
    folded = generator.folded()
    exported = ExportResult(
        source.name, folder, source.signature, about, folded, built, parity, latency, failures, over
    )
    if built:
        write_card(folder, exported.to_dict())
    return exported


def _make(
    maker: Maker, folder: Path, settings: ExportSettings, progress: Progress
) -> tuple[list[BuildResult], dict[str, Parity], dict[str, EdgegenError]]:
    """The files that could be made, how true each is, and by target why the others could not be."""
    generator = maker.generator
    sizes, limit = settings.export.heights_widths, settings.memory_limit
    verifier = Verifier(generator, samples=settings.samples, seed=settings.seed, sizes=sizes, memory_limit=limit)
    built: list[BuildResult] = []
    parity: dict[str, Parity] = {}
    failures: dict[str, EdgegenError] = {}
    with verifier as verify, progress.task(f"{maker.name}: export", len(settings.targets)) as task:
        for number, (target, made) in enumerate(
            maker.make(settings.targets, folder, meanwhile=verify.prepare), start=1
        ):
            if isinstance(made, EdgegenError):
                failures[str(target)] = made
                task.update(number, f"{target}: {made}")
                continue
            artifact = made.artifact
            built.append(made)
            parity[artifact.file], _ = verify(artifact, folder / artifact.file)
            checked = parity[artifact.file]
            note = checked.status if checked.psnr_db is None else f"{checked.status}, {checked.psnr_db:.1f} dB"
            task.update(number, f"{artifact.file}: {artifact.nbytes / 1e6:.2f} MB, {note}")
    return built, parity, failures


def _over_budget(
    artifacts: Sequence[Artifact],
    folder: Path,
    parity: Mapping[str, Parity],
    maker: Maker,
    race: RelativeLatency,
    settings: ExportSettings,
    progress: Progress,
) -> dict[str, list[str]]:
    """By file, what it does not keep of the budget."""
    if settings.quantize.budget is None:
        return {}
    budgeted = BudgetCheck(Budget.parse(settings.quantize.budget), maker, race=race, progress=progress)
    return {
        artifact.file: budgeted.broken(artifact, folder / artifact.file, parity[artifact.file])
        for artifact in artifacts
    }


class _Refiner:
    """What `refine` makes for a scheme, once each, or the error that it ended with."""

    def __init__(
        self, generator: Generator, settings: ExportSettings, race: RelativeLatency, folder: Path, progress: Progress
    ) -> None:
        self.generator, self.settings, self.race, self.folder, self.progress = (
            generator,
            settings,
            race,
            folder,
            progress,
        )
        self.made: dict[str, BuildInput | EdgegenError] = {}

    def __call__(self, scheme: str) -> BuildInput | None:
        quantize = self.settings.quantize
        if scheme not in GRIDS or not (self.settings.recover or quantize.methods or scheme == "mixed"):
            return None
        if scheme not in self.made:
            try:
                self.made[scheme] = self._refined(scheme)
            except EdgegenError as e:  # for every file of the scheme
                self.made[scheme] = e
        made = self.made[scheme]
        if isinstance(made, EdgegenError):
            raise made
        return made

    def _refined(self, scheme: str) -> BuildInput:
        from edgegen.artifacts.refine import refine  # which imports what training needs

        settings, folder = self.settings, self.folder / scheme
        folder.mkdir()
        refined = refine(
            self.generator.folded().module,
            self.generator.signature,
            scheme,
            options=settings.quantize,
            methods=settings.quantize.methods,
            recover=settings.recover,
            budget=None if settings.quantize.budget is None else Budget.parse(settings.quantize.budget),
            race=self.race,
            backends=backends_of(scheme, settings.targets),
            seed=settings.seed,
            folder=folder,
            progress=self.progress,
        )
        saved = save_program(refined.program, folder / "refined.pt2")
        return BuildInput(saved, refined.program.module(check_guards=False), refined.options)


def _measure(
    artifacts: Sequence[Artifact], folder: Path, parity: Mapping[str, Parity], progress: Progress
) -> dict[str, Latency]:
    """By file, its latency as `edgegen profile` measures it here, or why there is none."""
    from edgegen.profilers.devices.host import DEVICE
    from edgegen.profilers.files.profile import profile_files
    from edgegen.profilers.files.record import latency_of
    from edgegen.profilers.files.subject import untimed_reason
    from edgegen.profilers.timing.protocol import ProfileOptions

    latency: dict[str, Latency] = {}
    for artifact in artifacts:
        reason = "" if runs_here(artifact.backend) else "no runtime for it here"
        if parity[artifact.file].status != "ok":
            reason = f"parity {parity[artifact.file].status}"
        if reason := reason or untimed_reason(artifact.file):
            latency[artifact.file] = Latency(None, reason=f"not measured: {reason}")
    files = [folder / artifact.file for artifact in artifacts if artifact.file not in latency]
    if files:
        measured = profile_files(files, DEVICE, options=ProfileOptions(), progress=progress).results
        latency |= {record.artifact.name: latency_of(record) for record in measured}
    return latency
