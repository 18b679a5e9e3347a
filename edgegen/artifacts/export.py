"""Export of a user's generator: fold, build every file, compare each with PyTorch, measure, write a model card."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgegen.artifacts.budget import BudgetCheck
from edgegen.artifacts.build import BuildResult
from edgegen.artifacts.export_result import ExportResult, onnx_files
from edgegen.artifacts.maker import Maker
from edgegen.artifacts.model_card import write_card
from edgegen.artifacts.real_inputs import InputFiles, generators_of, sentence
from edgegen.artifacts.refinement_time import refinement_seconds
from edgegen.artifacts.refiner import Refiner
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.shipped import class_names, units_of
from edgegen.artifacts.target import Target, require_extras, why_untimed
from edgegen.artifacts.text_pipeline import write_text_parts
from edgegen.artifacts.tuned_files import Tuning, tuned_files
from edgegen.errors import EdgegenError, UsageError
from edgegen.formats.manifest import write_manifest
from edgegen.formats.router import Route, write_router
from edgegen.integrations.optimum_onnx import write_ort_pipeline
from edgegen.models.sources.load import Source, load_sources
from edgegen.program.generator import Generator
from edgegen.quantize.budget import Budget
from edgegen.quantize.schemes import GRIDS
from edgegen.recipe import Export as Export
from edgegen.recipe import Quantize, Recover
from edgegen.support.children import Children
from edgegen.support.progress import Progress
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import storage_errors
from edgegen.types import Artifact, Latency, Parity
from edgegen.verification.verify import Verifier

EXPORT, QUANTIZE = Export(), Quantize()
WORTH_SAYING_S = 60.0  # of an estimate of time


@dataclass(frozen=True)
class ExportSettings:
    """What to make of a source: `targets` in place of the artifacts of `export`, and three tables of a recipe.

    `memory_limit` in bytes is for each child process; `measure` adds host latencies; `name` begins the files' names;
    `inputs` are real ones, in place of those that the source's signature names; a longer refinement than
    `longest_refinement_s` is refused; `tuning` chooses the rewrites on a device.
    """

    targets: tuple[Target, ...]
    export: Export = EXPORT
    quantize: Quantize = QUANTIZE
    recover: Recover | None = None
    samples: int = 8
    seed: int = 0
    memory_limit: int | None = None
    measure: bool = True
    name: str | None = None
    inputs: InputFiles | None = None
    longest_refinement_s: float | None = None
    tuning: Tuning | None = None


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

    Several students go to `output/<student>`, with router.json; a pipeline's components to `output/<component>`, with
    what optimum-onnx needs to load `output` where it has a pipeline for it. A target that fails does not stop the
    others: it is in `failures`. Raises MissingExtraError before any work, DataError and UsageError for a source that
    cannot be read, ExportError where it cannot be captured or folded.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output} is a file; give a folder, new or with an older export")
    require_extras(settings.targets)
    sources = load_sources(
        source, name=settings.name, signature=signature, random_weights=random_weights, fuse_decoder=fuse_decoder
    )
    if (place := Path(source)).is_dir():  # a generator of a run has classes that the run knows by name
        sources = [
            replace(part, class_names=class_names(place, part.signature), units=units_of(place, part.signature))
            for part in sources
        ]
    generators = generators_of(sources, settings.inputs)
    for component, (generator, facts) in zip(sources, generators, strict=True):
        _check_stated(component, generator, settings.targets)
        if facts:
            progress.message(f"{component.name}: {sentence(facts)}")
    results = []
    with Children() as children:
        for component, (generator, facts) in zip(sources, generators, strict=True):
            folder = output / component.name if len(sources) > 1 else output
            with storage_errors(folder):  # before minutes of work
                folder.mkdir(parents=True, exist_ok=True)
            try:
                with temporary_folder() as temporary:
                    about = (component, generator, facts, folder, Path(temporary))
                    results.append(_export(*about, settings, children, progress))
            finally:
                with contextlib.suppress(OSError):  # a folder with files stays
                    folder.rmdir()
    if sources[0].serves:
        write_router(output, [Route(part.name, part.serves) for part in sources])
    elif len(sources) > 1:
        if write_ort_pipeline(Path(source), output, onnx_files(results)):
            progress.message(f"{output}: optimum-onnx's ORTDiffusionPipeline loads it, for one step without guidance")
        if message := write_text_parts(Path(source), output, sources):
            progress.message(message)
    return results


def _check_stated(source: Source, generator: Generator, targets: Sequence[Target]) -> None:
    """Raises UsageError for a calibrated target of a network of which nobody said what goes in."""
    calibrated = [target for target in targets if target.cell().calibrated]
    unstated = [name for name in source.unstated if name in generator.inputs(0).synthetic]
    if not calibrated or not unstated:
        return
    name = unstated[0]
    role = next(spec.role for spec in source.signature.inputs if spec.name == name)
    if role == "image":
        raise UsageError(
            f"{calibrated[0]}: the signature gives no low and high for the image {name}, so its ranges would come from "
            "numbers that the network may never see; write them (such as 0.0 and 1.0), or give --inputs FILE.npz"
        )
    raise UsageError(
        f"{calibrated[0]}: nothing says whether {name} is noise, an image or something else, so its ranges would come "
        "from numbers that the network may never see; give --signature FILE, or real values by --inputs"
    )


def _check_time(name: str, generator: Generator, settings: ExportSettings, progress: Progress) -> None:
    """Says how long refining will take. Raises UsageError where that is longer than the settings allow."""
    schemes = {target.scheme for target in settings.targets} & GRIDS.keys()
    seconds = refinement_seconds(generator, settings.quantize, settings.recover, schemes=len(schemes))
    if seconds < WORTH_SAYING_S:
        return
    text = f"rounding and recovery take about {seconds / 60:.0f} minutes on this machine"
    if settings.longest_refinement_s is not None and seconds > settings.longest_refinement_s:
        raise UsageError(f"{name}: {text}; --yes starts them")
    progress.message(f"{name}: {text}")


def _export(
    source: Source,
    generator: Generator,
    facts: Mapping[str, Any] | None,
    folder: Path,
    temporary: Path,
    settings: ExportSettings,
    children: Children,
    progress: Progress,
) -> ExportResult:
    license_name = settings.export.license
    if license_name == EXPORT.license:
        license_name = source.about.get("license") or license_name
    source_facts = {**source.about, "license": license_name, **({"inputs": facts} if facts else {})}
    _check_time(source.name, generator, settings, progress)
    metadata = {"license": str(license_name), "family": str(source_facts["family"])}
    maker, relative_latency = _maker(generator, source.name, metadata, temporary, settings, children, progress)
    built, parity, failures = _make(maker, folder, settings, progress)
    artifacts = [build_result.artifact for build_result in built]
    if built:
        lineage = {"source": source.name, **source_facts}
        classes: dict[str, Any] = {"class_names": source.class_names, "serves": source.serves, "units": source.units}
        write_manifest(folder, artifacts, source.signature, lineage=lineage, parity=parity, **classes)
    latency = _measure(artifacts, folder, parity, progress) if settings.measure else {}
    over_budget = _over_budget(artifacts, folder, parity, maker, relative_latency, settings, progress)
    result = ExportResult(
        source.name,
        folder,
        source.signature,
        source_facts,
        generator.folded(),
        built,
        parity,
        latency,
        failures,
        over_budget,
        source.class_names,
        source.units,
    )
    if built:
        write_card(folder, result.to_dict())
    return result


def _maker(
    generator: Generator,
    name: str,
    metadata: Mapping[str, str],
    temporary: Path,
    settings: ExportSettings,
    children: Children,
    progress: Progress,
) -> tuple[Maker, RelativeLatency]:
    """What makes the files, and what measures those of a budget beside their float ones."""
    relative_latency = RelativeLatency(
        generator,
        folder=temporary,
        options=settings.export,
        children=children,
        seed=settings.seed,
        memory_limit=settings.memory_limit,
        progress=progress,
    )
    refined = Refiner(
        generator,
        settings.targets,
        quantize=settings.quantize,
        recover=settings.recover,
        seed=settings.seed,
        relative_latency=relative_latency,
        folder=temporary,
        progress=progress,
    )
    maker = Maker(
        generator,
        name=name,
        metadata=metadata,
        options=settings.export,
        quantization=settings.quantize,
        refined=refined,
        children=children,
        seed=settings.seed,
        memory_limit=settings.memory_limit,
        progress=progress,
    )
    return maker, relative_latency


def _make(
    maker: Maker, folder: Path, settings: ExportSettings, progress: Progress
) -> tuple[list[BuildResult], dict[str, Parity], dict[str, EdgegenError]]:
    """The files that could be made, the parity of each, and by target why the others could not be made."""
    generator = maker.generator
    sizes, limit = settings.export.heights_widths, settings.memory_limit
    verifier = Verifier(generator, samples=settings.samples, seed=settings.seed, sizes=sizes, memory_limit=limit)
    built: list[BuildResult] = []
    parity: dict[str, Parity] = {}
    failures: dict[str, EdgegenError] = {}
    count = 1 if settings.tuning and settings.tuning.one_of_all else len(settings.targets)
    with verifier as verify, progress.task(f"{maker.name}: export", count) as task:
        if settings.tuning is None:
            results = maker.make(settings.targets, folder, meanwhile=verify.prepare)
        else:
            context = {"recover": settings.recover.model_dump(mode="json") if settings.recover else None}
            about: dict[str, Any] = {"samples": settings.samples, "context": context}
            results = tuned_files(maker, settings.targets, folder, settings.tuning, **about)
        for number, (target, result) in enumerate(results, start=1):
            if isinstance(result, EdgegenError):
                failures[str(target)] = result
                task.update(number, f"{target}: {result}")
                continue
            artifact = result.artifact
            built.append(result)
            parity[artifact.file], _ = verify(artifact, folder / artifact.file)
            task.update(number, f"{artifact.file}: {artifact.nbytes / 1e6:.2f} MB, {parity[artifact.file]}")
    return built, parity, failures


def _over_budget(
    artifacts: Sequence[Artifact],
    folder: Path,
    parity: Mapping[str, Parity],
    maker: Maker,
    relative_latency: RelativeLatency,
    settings: ExportSettings,
    progress: Progress,
) -> dict[str, list[str]]:
    """By file, the limits of the budget that it breaks."""
    if settings.quantize.budget is None:
        return {}
    budget = Budget.parse(settings.quantize.budget)
    check = BudgetCheck(budget, maker, relative_latency=relative_latency, progress=progress)
    return {
        artifact.file: check.broken(artifact, folder / artifact.file, parity[artifact.file]) for artifact in artifacts
    }


def _measure(
    artifacts: Sequence[Artifact], folder: Path, parity: Mapping[str, Parity], progress: Progress
) -> dict[str, Latency]:
    """By file, its latency as `edgegen profile` measures it on this machine, or why there is none."""
    from edgegen.profilers.devices.host import DEVICE
    from edgegen.profilers.files.profile import profile_files
    from edgegen.profilers.files.record import latency_of
    from edgegen.profilers.timing.protocol import ProfileOptions

    latency: dict[str, Latency] = {}
    for artifact in artifacts:
        if reason := why_untimed(artifact, parity[artifact.file].status):
            latency[artifact.file] = Latency(None, reason=reason)
    files = [folder / artifact.file for artifact in artifacts if artifact.file not in latency]
    if files:
        records = profile_files(files, DEVICE, options=ProfileOptions(), progress=progress).results
        latency |= {record.artifact.name: latency_of(record) for record in records}
    return latency
