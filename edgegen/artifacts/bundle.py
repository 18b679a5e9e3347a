"""`edgegen bundle`: the files of a run or an export as one folder for an app, with golden images of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.bundle_artifact import bundled_artifact, target_of
from edgegen.artifacts.bundle_card import write_bundle_card
from edgegen.artifacts.bundle_students import StudentParts, copy_files, run_artifact
from edgegen.artifacts.bundle_text import PromptInputs, TextParts, golden_prompts
from edgegen.artifacts.golden import FLOOR_DB, golden_inputs, golden_samples, write_given
from edgegen.artifacts.shipped import files_of
from edgegen.artifacts.target import Target
from edgegen.errors import (
    DataError,
    ExportError,
    MissingExtraError,
    NoRuntimeError,
    ParityError,
    UsageError,
    unknown_name,
)
from edgegen.formats.bundle import Bundle, ExpectedImages, Golden
from edgegen.formats.bundle_folder import GOLDEN, facts_of, is_bundle, write_bundle_manifest
from edgegen.formats.bundle_students import Student
from edgegen.formats.bundle_text import Prompt
from edgegen.formats.bundle_zip import SUFFIX, write_zip
from edgegen.formats.manifest import ManifestEntry, check_folder
from edgegen.formats.signature_values import check_signature
from edgegen.formats.text_pipeline import read_text_pipeline
from edgegen.profilers.schema import Profile
from edgegen.profilers.schema import read as read_profile
from edgegen.support.progress import Progress
from edgegen.support.storage import atomic_path, write_bytes
from edgegen.types import Signature
from edgegen.verification.session_process import SessionProcess

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
        files: a folder with manifest.json, as an export or a run writes it; or with router.json, of several students.
        output: a new folder, or an older bundle, which is replaced.
        artifacts: names of files or targets such as "onnx-w8a8"; default: all that agreed with PyTorch.
        name: of the bundle; default: that of the recipe, or of the source of the export.
        measurements: files of `edgegen profile`, whose latencies of these artifacts are taken over.
        progress: gets a line for each artifact.

    Raises:
        UsageError: unknown artifacts, a generator without images, an output that is something else.
        DataError: the folder is not as exported, or none of its files can be run here.
        ParityError: none of its files passed the comparison with PyTorch.
        ExportError: a runtime refuses a file.
    """
    check_output(output)
    pipeline = read_text_pipeline(files)
    text = None if pipeline is None else TextParts.of(files, pipeline)
    files = files if pipeline is None else files / pipeline.generator
    if name is not None and not name.strip():
        raise UsageError("--name: is empty; give the bundle a name, or leave the option out")
    if is_bundle(files):
        raise UsageError(f"{files}: is a bundle already; give the run or the export that it was made from")
    students = StudentParts.of(files)
    entries = check_folder(files) if students is None else students.of_all()
    chosen = _chosen(entries, artifacts, files)
    signature = check_signature(chosen[0].signature)
    if not signature.makes_images:
        spec = signature.outputs[0]
        raise UsageError(f"{files}: its output '{spec.name}' is {spec.role}, and a bundle is for images")
    profiles = [read_profile(path) for path in measurements]
    lineage = chosen[0].lineage
    name = name or str(lineage.get("recipe") or lineage.get("source") or output.name)
    with atomic_path(output) as folder:
        folder.mkdir()
        by_file: dict[str, tuple[Student, ...]] = {}
        for entry in chosen:
            if students is None:
                copy_files(files, entry, folder)
            else:
                by_file[entry.row["file"]] = students.copy(entry, folder)
        return _describe(folder, chosen, signature, name, profiles, progress, text, by_file)


def _describe(
    folder: Path,
    entries: Sequence[ManifestEntry],
    signature: Signature,
    name: str,
    profiles: Sequence[Profile],
    progress: Progress,
    parts: TextParts | None,
    students: Mapping[str, tuple[Student, ...]],
) -> Bundle:
    """Adds to the artifacts in `folder` all that makes a bundle of them."""
    samples, facts = golden_samples(signature), entries[0]
    prompts: tuple[Prompt, ...] = ()
    text = None if parts is None else parts.copy(entries, folder)
    if text is not None:
        prompts, samples = golden_prompts(folder, text, samples)
    input_name = None if text is None else text.input
    given = write_given(folder, signature, len(samples), text=input_name)
    inputs = golden_inputs(folder, signature, samples, given, text=input_name)
    encoders = {} if parts is None else {entry.row["file"]: parts.encoder_of(entry).row["file"] for entry in entries}

    def inputs_of(file: str, process: SessionProcess) -> Mapping[str, NDArray[Any]]:
        if text is None:
            return inputs
        return PromptInputs(folder, text, prompts, samples, signature, inputs).of(encoders[file], process)

    golden = _golden_images(folder, entries, students, inputs_of, signature, progress)
    artifacts = []
    for entry in entries:
        file = entry.row["file"]
        expected = _write_golden(folder, entry, golden[file])
        artifacts.append(
            bundled_artifact(
                folder,
                entry,
                signature,
                expected,
                profiles,
                text_encoder=encoders.get(file),
                students=students.get(file, ()),
            )
        )
    shown = golden[artifacts[0].file].images
    bundle = Bundle(
        name=name,
        license=str(facts.lineage.get("license") or UNKNOWN_LICENSE),
        signature=signature,
        class_names=tuple(facts.class_names),
        colors="gray" if signature.image_shape[0] == 1 else "RGB",
        text=text,
        artifacts=tuple(artifacts),
        golden=Golden(samples=samples, prompts=prompts, inputs=given, shape=shown.shape),
        lineage=dict(facts.lineage),
        tools=dict(facts.tools),
        files=facts_of(folder),
    )
    write_bundle_card(folder, bundle, [entry.row for entry in entries], shown)
    bundle = bundle.model_copy(update={"files": facts_of(folder)})
    write_bundle_manifest(folder, bundle)
    return bundle


def bundle_source(
    source: str,
    output: Path | None,
    *,
    artifacts: Sequence[str] = (),
    name: str | None = None,
    zipped: bool = False,
    measurements: Sequence[Path] = (),
    runs: Path = Path("runs"),
    progress: Progress,
) -> tuple[Bundle, Path, Path | None]:
    """What `edgegen bundle` does: the bundle of a run or an export, its folder and, if `zipped`, its .zip beside it.

    The latencies of a run come along. `output` None: bundles/NAME. Raises as `write_bundle` does.
    """
    files, run = files_of(source, runs=runs)
    profile = None if run is None else run / "profile" / "latest" / "profile.json"
    own = [profile] if profile is not None and profile.is_file() else []
    folder = output or Path("bundles") / (run or files).resolve().name
    archive = folder.with_name(folder.name + SUFFIX) if zipped else None
    if archive is not None and archive.is_dir():
        raise UsageError(f"--zip: {archive} is a folder, and a file should go there; choose another -o")
    bundle = write_bundle(
        files, folder, artifacts=artifacts, name=name, measurements=[*own, *measurements], progress=progress
    )
    if archive is not None:
        write_zip(folder, archive)
    return bundle, folder, archive


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
            raise ParityError(f"{files}: none of its files passed the comparison with PyTorch")
        return passed
    by_name = {entry.row["file"]: entry for entry in entries}
    by_target = {str(target_of(entry)): entry.row["file"] for entry in entries}
    wanted = set()
    for text in names:
        name = text if text in by_name else by_target.get(_target_named(text), text)
        if name not in by_name:
            raise UsageError(f"--artifact: {unknown_name('artifact', text, [*by_name, *by_target])}")
        if _status(by_name[name]) == "failed":
            reason = by_name[name].row["parity"].get("reason", "")
            raise UsageError(f"--artifact {text}: it does not compute what PyTorch computes ({reason}); leave it out")
        wanted.add(name)
    return [entry for name, entry in by_name.items() if name in wanted]


def _target_named(text: str) -> str:
    """ "onnx" in full: "onnx-fp32"; what is no target stays as it is."""
    try:
        return str(Target.parse(text))
    except UsageError:
        return text


def _status(entry: ManifestEntry) -> str:
    return str(entry.row.get("parity", {}).get("status", "not checked"))


def _golden_images(
    folder: Path,
    entries: Sequence[ManifestEntry],
    students: Mapping[str, tuple[Student, ...]],
    inputs_of: Callable[[str, SessionProcess], Mapping[str, NDArray[Any]]],
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
                    inputs = inputs_of(file, process)
                    runtime, own = entry.row["backend"], students.get(file, ())
                    images, session = run_artifact(process, folder / file, runtime, own, inputs, signature)
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
    first = next(iter(made.values()))
    return {entry.row["file"]: made.get(entry.row["file"], first) for entry in entries}


def _write_golden(folder: Path, entry: ManifestEntry, golden: GoldenImages) -> ExpectedImages:
    path = f"{GOLDEN}/{entry.row['file']}.u8"
    write_bytes(folder / path, golden.images.tobytes())
    return ExpectedImages(file=path, floor_db=min(target_of(entry).cell().floor_db, FLOOR_DB), made_by=golden.made_by)
