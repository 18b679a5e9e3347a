"""`edgegen bundle`: the files of a run or an export as one folder for an app, with golden images of each."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.bundle_card import write_bundle_card
from edgegen.artifacts.golden import (
    FLOOR_DB,
    golden_inputs,
    golden_samples,
    images_of,
    write_given,
)
from edgegen.artifacts.target import Target, interface
from edgegen.errors import DataError, ExportError, MissingExtraError, NoRuntimeError, UsageError, unknown_name
from edgegen.exporters.base import Variant
from edgegen.formats.bundle import (
    Bundle,
    BundledArtifact,
    ExpectedImages,
    Golden,
    Input,
    LatencyRow,
    MethodSpec,
    Output,
)
from edgegen.formats.bundle_folder import GOLDEN, files_of, is_bundle, write_bundle_manifest
from edgegen.formats.manifest import ManifestEntry, check_folder
from edgegen.formats.signature_values import check_signature
from edgegen.profilers.schema import MeasuredFile, Profile
from edgegen.profilers.schema import read as read_profile
from edgegen.recipe import Export
from edgegen.support.progress import Progress
from edgegen.support.storage import atomic_path, nbytes_of, write_bytes
from edgegen.types import Parity, Signature
from edgegen.verification.session_process import SessionProcess

NOT_FOR_APPS = (".etrecord",)  # what lies beside an artifact for its makers
UNKNOWN_LICENSE = "not stated"

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class GoldenImages:
    """Images of an artifact and what made them."""

    images: Images
    made_by: str


def write_bundle(
    files: Path,
    output: Path,
    *,
    artifacts: Sequence[str] = (),
    name: str | None = None,
    measurements: Sequence[Path] = (),
    progress: Progress,
) -> Bundle:
    """Write the bundle `output` from the artifacts in the folder `files`; the same input gives the same bytes.

    Args:
        files: a folder with manifest.json, as an export or a run writes it.
        output: a new folder, or an older bundle, which is replaced.
        artifacts: names of files or targets such as "onnx-w8a8"; default: all that agreed with PyTorch.
        name: of the bundle; default: that of the recipe, or of the source of the export.
        measurements: files of `edgegen profile`, whose latencies of these artifacts are taken over.
        progress: gets a line for each artifact.

    Raises:
        UsageError: unknown artifacts, a generator without images, an output that is something else.
        DataError: the folder is not as exported, or none of its files can be run here.
        ExportError: a runtime refuses a file.
    """
    check_output(output)
    entries = check_folder(files)
    chosen = _chosen(entries, artifacts, files)
    signature = check_signature(chosen[0].signature)
    if not signature.makes_images:
        spec = signature.outputs[0]
        raise UsageError(f"{files}: its output '{spec.name}' is {spec.role}, and a bundle is for images")
    profiles = [read_profile(path) for path in measurements]
    lineage, samples = chosen[0].lineage, golden_samples(signature)
    with atomic_path(output) as folder:
        folder.mkdir()
        for entry in chosen:
            _copy(files, entry, folder)
        given = write_given(folder, signature, len(samples))
        inputs = golden_inputs(folder, signature, samples, given)
        golden = _golden_images(folder, chosen, inputs, signature, progress)
        rows = []
        for entry in chosen:
            expected = _write_golden(folder, entry, golden[entry.row["file"]])
            rows.append(_artifact(folder, entry, signature, expected, profiles))
        bundle = Bundle(
            name=name or str(lineage.get("recipe") or lineage.get("source") or output.name),
            license=str(lineage.get("license") or UNKNOWN_LICENSE),
            signature=signature,
            class_names=tuple(chosen[0].class_names),
            colors="gray" if signature.image_shape[0] == 1 else "RGB",
            artifacts=tuple(rows),
            golden=Golden(samples=samples, inputs=given, shape=golden[rows[0].file].images.shape),
            lineage=dict(lineage),
            tools=dict(chosen[0].tools),
            files=files_of(folder),
        )
        write_bundle_card(folder, bundle, [entry.row for entry in chosen], golden[rows[0].file].images)
        bundle = bundle.model_copy(update={"files": files_of(folder)})
        write_bundle_manifest(folder, bundle)
    return bundle


def check_output(output: Path) -> None:
    """Raises UsageError where a bundle may not be written to `output`: nothing but a bundle is replaced."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UsageError(f"-o {output}: is no folder; give a new one")
    if output.is_dir() and any(output.iterdir()) and not is_bundle(output):
        raise UsageError(f"-o {output}: is a folder with other files, which stay as they are; give a new folder")


def _chosen(entries: Sequence[ManifestEntry], names: Sequence[str], files: Path) -> list[ManifestEntry]:
    """The entries of the named artifacts, in the manifest's order; without names those that passed parity."""
    if not names:
        passed = [entry for entry in entries if _status(entry) == "ok"]
        if not passed:
            raise DataError(
                f"{files}: none of its files passed the comparison with PyTorch; name those that you want by --artifact"
            )
        return passed
    by_name = {entry.row["file"]: entry for entry in entries}
    by_target = {str(_target(entry)): entry.row["file"] for entry in entries}
    wanted = set()
    for text in names:
        name = by_target.get(text, text)
        if name not in by_name:
            raise UsageError(f"--artifact: {unknown_name('artifact', text, [*by_name, *by_target])}")
        if _status(by_name[name]) == "failed":
            reason = by_name[name].row["parity"].get("reason", "")
            raise UsageError(f"--artifact {text}: it does not compute what PyTorch computes ({reason}); leave it out")
        wanted.add(name)
    return [entry for name, entry in by_name.items() if name in wanted]


def _status(entry: ManifestEntry) -> str:
    return str(entry.row.get("parity", {}).get("status", "not checked"))


def _target(entry: ManifestEntry) -> Target:
    return Target(entry.row["backend"], entry.row["scheme"], entry.row.get("variant", ""))


def _beside(entry: ManifestEntry) -> tuple[str, ...]:
    extra = entry.row["details"].get("extra_files", {})
    return tuple(name for name in extra if not name.endswith(NOT_FOR_APPS))


def _copy(files: Path, entry: ManifestEntry, folder: Path) -> None:
    for name in (entry.row["file"], *_beside(entry)):
        if (files / name).is_dir():
            shutil.copytree(files / name, folder / name)
        else:
            shutil.copyfile(files / name, folder / name)


def _golden_images(
    folder: Path,
    entries: Sequence[ManifestEntry],
    inputs: Mapping[str, NDArray[Any]],
    signature: Signature,
    progress: Progress,
) -> dict[str, GoldenImages]:
    """By file. What nothing here runs gets the images of the first file that runs, which its own must resemble.

    Raises DataError where none runs, ExportError where one is refused.
    """
    made: dict[str, GoldenImages] = {}
    process = SessionProcess()
    try:
        with progress.task("golden images", len(entries)) as task:
            for number, entry in enumerate(entries, start=1):
                file = entry.row["file"]
                try:
                    session = process.open(entry.row["backend"], folder / file)
                    images = images_of(session, inputs, signature)
                    made[file] = GoldenImages(images, f"{file} by {session.method}")
                    task.update(number, f"{file}: {len(images)} images by {session.method}")
                except (NoRuntimeError, MissingExtraError) as e:
                    task.update(number, f"{file}: {str(e).replace(str(folder / file), file)}")
                except ExportError as e:
                    raise ExportError(f"{file}: {e}") from e
    finally:
        process.close()
    if not made:
        raise DataError("none of the files can be run on this machine, so there are no golden images to compare with")
    first = next((made[e.row["file"]] for e in entries if e.row["file"] in made), None)
    assert first is not None, "one of them ran"
    return {entry.row["file"]: made.get(entry.row["file"], first) for entry in entries}


def _write_golden(folder: Path, entry: ManifestEntry, golden: GoldenImages) -> ExpectedImages:
    path = f"{GOLDEN}/{entry.row['file']}.u8"
    write_bytes(folder / path, golden.images.tobytes())
    return ExpectedImages(file=path, floor_db=min(_target(entry).cell().floor_db, FLOOR_DB), made_by=golden.made_by)


def _artifact(
    folder: Path, entry: ManifestEntry, signature: Signature, golden: ExpectedImages, profiles: Sequence[Profile]
) -> BundledArtifact:
    row, target = entry.row, _target(entry)
    kind = target.kind()
    details = row["details"]
    generates = any(output.get("method") == "generate" for output in details.get("outputs", ()))
    faces = interface(target, signature, Export(generate=generates))
    of_names = {spec.name: spec for spec in signature.inputs}
    inputs = []
    for position, face in enumerate(faces["inputs"]):
        spec = of_names[face["name"]]
        inputs.append(
            Input(
                **{**face, "shape": tuple(face["shape"])},
                role=spec.role,
                low=spec.low,
                high=spec.high,
                seed_offset=position if spec.role == "noise" else 0,
            )
        )
    return BundledArtifact(
        file=row["file"],
        runtime=row["backend"],
        scheme=row["scheme"],
        variant=row.get("variant", ""),
        about=kind.about,
        nbytes=sum(nbytes_of(folder / name) for name in (row["file"], *_beside(entry))),
        sha256=row["sha256"],
        beside=_beside(entry),
        batch=kind.batch,
        heights_widths=_sizes(signature, kind, details),
        inputs=tuple(inputs),
        methods=tuple(_method(output, signature) for output in faces["outputs"]),
        parity=Parity(**row["parity"]),
        golden=golden,
        latency=tuple(latency for profile in profiles for latency in _latencies(profile, row["sha256"])),
        caution=details.get("caution", ""),
    )


def _method(output: Mapping[str, Any], signature: Signature) -> MethodSpec:
    low, high = (0.0, 255.0) if output["dtype"] == "uint8" else signature.outputs[0].image_range
    spec = Output(
        name=output["name"],
        dtype=output["dtype"],
        shape=tuple(output["shape"]),
        layout=output["layout"],
        low=low,
        high=high,
    )
    return MethodSpec(name=output["method"] or None, output=spec)


def _sizes(signature: Signature, kind: Variant, details: Mapping[str, Any]) -> tuple[tuple[int, int], ...] | None:
    if kind.any_size and not kind.lists_sizes:
        return None
    first = next((spec for spec in signature.inputs if spec.is_spatial), None)
    own = () if first is None else ((int(first.shape[2]), int(first.shape[3])),)
    return (*own, *((height, width) for height, width in details.get("heights_widths", ())))


def _latencies(profile: Profile, sha256: str) -> list[LatencyRow]:
    return [
        _latency(profile, row) for row in profile.results if row.artifact.sha256 == sha256 and row.latency is not None
    ]


def _latency(profile: Profile, row: MeasuredFile) -> LatencyRow:
    assert row.latency is not None, "it was timed"
    assert row.verdict.status != "failed", "one that failed has no latency"
    cold, target = row.cold[-1] if row.cold else None, profile.target
    return LatencyRow(
        device=profile.device,
        machine=target.get("model") or target.get("cpu"),
        os=target.get("os"),
        runtime=row.config.runtime,
        threads=row.config.threads_requested,
        p50_ms=row.latency.p50_ms,
        p90_ms=row.latency.p90_ms,
        load_ms=None if cold is None else cold.load_ms,
        first_ms=None if cold is None else cold.first_ms,
        peak_rss_bytes=row.peak_rss_bytes,
        status=row.verdict.status,
        created=profile.created,
    )
