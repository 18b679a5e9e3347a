"""The record of one artifact in a bundle: from the manifest of its export, its signature and measurements."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgegen.artifacts.target import Target, interface
from edgegen.exporters.base import Variant
from edgegen.formats.bundle import BundledArtifact, ExpectedImages, Input, LatencyRow, MethodSpec, Output
from edgegen.formats.bundle_students import Student
from edgegen.formats.manifest import ManifestEntry
from edgegen.profilers.schema import MeasuredFile, Profile
from edgegen.recipe import Export
from edgegen.support.storage import nbytes_of
from edgegen.types import Parity, Signature

NOT_FOR_APPS = (".etrecord",)  # what lies beside an artifact for its makers


def target_of(entry: ManifestEntry) -> Target:
    """What the artifact of an entry was exported as."""
    return Target(entry.row["backend"], entry.row["scheme"], entry.row.get("variant", ""))


def beside(entry: ManifestEntry) -> tuple[str, ...]:
    """The files beside an artifact that an app needs, too."""
    extra = entry.row["details"].get("extra_files", {})
    return tuple(name for name in extra if not name.endswith(NOT_FOR_APPS))


def bundled_artifact(
    folder: Path,
    entry: ManifestEntry,
    signature: Signature,
    golden: ExpectedImages,
    profiles: Sequence[Profile],
    *,
    text_encoder: str | None = None,
    students: tuple[Student, ...] = (),
) -> BundledArtifact:
    """The artifact of `entry`, which lies in `folder`; `text_encoder` is the file that it needs. Raises DataError.

    Of several `students`, `entry` is that of the first.
    """
    row, target = entry.row, target_of(entry)
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
    hashes = [student.sha256 for student in students] or [row["sha256"]]
    own = sum(nbytes_of(folder / name) for name in (row["file"], *beside(entry)))
    return BundledArtifact(
        file=row["file"],
        runtime=row["backend"],
        scheme=row["scheme"],
        variant=row.get("variant", ""),
        about=kind.about,
        nbytes=sum(student.nbytes for student in students) or own,
        sha256=row["sha256"],
        beside=beside(entry),
        batch=kind.batch,
        heights_widths=_sizes(signature, kind, details),
        inputs=tuple(inputs),
        methods=tuple(_method(output, signature) for output in faces["outputs"]),
        parity=Parity(**row["parity"]),
        golden=golden,
        text_encoder=text_encoder,
        students=students,
        latency=tuple(row for profile in profiles for sha256 in hashes for row in _latencies(profile, sha256)),
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
