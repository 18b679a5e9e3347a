"""Export what a user brings: fold, build every file, compare each with PyTorch, measure, describe the folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegen import registry
from edgegen.build import MANIFEST, Built, Target, build, write_manifest
from edgegen.capture import PIXELS, example_inputs, reference
from edgegen.card import write_card
from edgegen.errors import EdgegenError, ExportError, ParityError
from edgegen.exporters.base import DEFAULTS, LowerOptions
from edgegen.folding import Folded, fold
from edgegen.models.source import Source, load_sources
from edgegen.parity import OUTPUT, Session, check, not_checked, psnr_range
from edgegen.progress import Progress
from edgegen.quantize.matrix import cell
from edgegen.types import Artifact, Latency, Parity, Signature

if TYPE_CHECKING:
    from torch import nn

PIXELS_FLOOR_DB = 40.0  # of uint8 images: a value on the edge between two bytes may fall to either side


@dataclass(frozen=True)
class ExportSettings:
    """What to make of a source. `memory_limit` in bytes is for each child process; `measure` adds host latencies."""

    targets: tuple[Target, ...]
    lower: LowerOptions = DEFAULTS
    calibration: int = 1024
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
            row["export"] = {"seconds": one.seconds, "peak_rss_bytes": one.peak_rss_bytes}
            rows.append(row)
        folded = {key: value for key, value in vars(self.fold).items() if key != "module"}
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

    A pipeline's components go to `output/<component>`. A target that fails does not stop the others: it is in
    `failures`. Raises DataError and UsageError for a source that cannot be read, ExportError where it cannot be
    captured or folded.
    """
    sources = load_sources(source, signature=signature, random_weights=random_weights, fuse_decoder=fuse_decoder)
    exported = []
    for one in sources:
        folder = output / one.name if len(sources) > 1 else output
        exported.append(_export(one, folder, settings, progress))
    return exported


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
        folded = fold(source.module, source.signature)
        task.update(1, _what_folding_did(folded))
    about = {**source.about, "license": settings.license or source.about.get("license") or "not stated"}
    inputs = example_inputs(source.signature, settings.samples, settings.seed)
    expected = reference(folded.module, inputs)
    built: list[Built] = []
    parity: dict[str, Parity] = {}
    failures: dict[str, str] = {}
    with progress.task(f"{source.name}: export", len(settings.targets)) as task:
        for number, target in enumerate(settings.targets):
            task.update(number, str(target))
            try:
                one = _build(folded.module, source, about, folder, target=target, settings=settings)
            except EdgegenError as e:
                failures[str(target)] = str(e)
                task.update(number + 1, f"{target}: {e}")
                continue
            built.append(one)
            found = verify(one.artifact, folder, source.signature, inputs, expected)
            parity[one.artifact.file] = found
            note = found.status if found.psnr_db is None else f"{found.status}, {found.psnr_db:.1f} dB"
            task.update(number + 1, f"{one.artifact.file}: {one.artifact.nbytes / 1e6:.2f} MB, {note}")
    artifacts = [one.artifact for one in built]
    lineage = {"source": source.name, **about}
    write_manifest(folder, artifacts, source.signature, lineage=lineage, parity=parity)
    latency = _measure(artifacts, folder, parity, progress) if settings.measure else {}
    exported = Exported(source.name, folder, source.signature, about, folded, built, parity, latency, failures)
    write_card(folder, exported.to_dict())
    return exported


def _what_folding_did(folded: Folded) -> str:
    parameters = folded.parameters_before - folded.parameters_after
    operations = folded.operations_before - folded.operations_after
    return f"{parameters:,} parameters and {operations} operations removed, error {folded.max_relative_error:.0e}"


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


def verify(
    artifact: Artifact,
    folder: Path,
    signature: Signature,
    inputs: Mapping[str, NDArray[Any]],
    expected: NDArray[np.float32],
) -> Parity:
    """The file against PyTorch's `expected` (batch, ...), with the floor of its cell; its images, where it makes some.

    "not checked" with the reason where nothing here can run it.
    """
    floor_db = cell(artifact.scheme, artifact.backend).floor_db
    data_range = psnr_range(signature, expected)
    try:
        session: Session = registry.load("backend", artifact.backend).open(folder / artifact.file)
        if artifact.variant == "generate":
            return _check_pixels(session, inputs, expected, min(floor_db, PIXELS_FLOOR_DB))
        parity = check(session, inputs, expected, floor_db=floor_db, data_range=data_range)
        generate = getattr(session, "generate", None)
        if parity.status != "ok" or generate is None:
            return parity
        pixels = _check_pixels(generate, inputs, expected, min(floor_db, PIXELS_FLOOR_DB))
        return parity if pixels.status == "ok" else pixels
    except ExportError as e:
        return not_checked(str(e), floor_db)


class _AsFloat:
    """A session whose uint8 image is an image in [-1, 1] again, to be compared."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.method = f"{session.method}, method generate"

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        pixels = np.asarray(self.session(inputs)[PIXELS])
        return {OUTPUT: to_float(pixels)}


def to_float(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 (batch, height, width, channels) -> float32 (batch, channels, height, width) in [-1, 1]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1.0


def _check_pixels(
    session: Session, inputs: Mapping[str, NDArray[Any]], expected: NDArray[np.float32], floor_db: float
) -> Parity:
    from edgegen.data import to_uint8

    return check(_AsFloat(session), inputs, to_float(to_uint8(expected)), floor_db=floor_db, data_range=2.0)


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
