"""Opens what makes images, to run it on this machine: a recipe's student, a generator folder, an exported file.

`network` does it for a worker of the profiler, which is given "edgegen.artifacts.sessions:network".
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgegen import registry
from edgegen.artifacts import shipped
from edgegen.errors import DataError, UsageError
from edgegen.flow.condition import condition_spec
from edgegen.formats.signal_units import SignalUnits
from edgegen.types import PIXELS, Signature

if TYPE_CHECKING:
    from torch import Tensor

    from edgegen.models.verifier import Verifier

TEACHER_STEPS = 20
BATCH = 64  # images that an exported file makes in one run: of thousands, the activations would fill the memory
LARGEST_RUN = 1 << 20  # values of all inputs in one run; a sample that has more runs alone


@dataclass(frozen=True)
class ImageSource:
    """`run` turns inputs by name into images (n, channels, height, width); `method` says what it is, in words.

    Images of a file that gives uint8 are (n, height, width, channels). `place` is the file or folder. `sizes` are the
    heights and widths that the first input may have: None for any, else the signature's own first. `class_names` are
    those of the classes 0, 1, ..., () where nobody knows them. `steps` are those of a solver in PyTorch.
    `units` are those of signals, where they are known.
    """

    run: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
    signature: Signature
    method: str
    place: Path
    sizes: tuple[tuple[int, int], ...] | None = ()
    class_names: tuple[str, ...] = ()
    steps: int | None = None
    units: SignalUnits | None = None


def open_source(source: str, *, steps: int | None, runs: Path, best_of: int = 1) -> ImageSource:
    """What `edgegen sample` runs, after it was compared with its record.

    An exported file, a folder of such files, a generator folder; or the name of a run in `runs`, or its recipe: the
    file that the run ships, its student where there is none yet or `steps` are given. With `best_of` a student's images
    are the best of as many, by the verifier beside it. Raises DataError and UsageError.
    """
    from edgegen.exporters.base import backends_by_suffix

    path, backends = Path(source), backends_by_suffix()
    if path.suffix not in backends:
        path = shipped.resolve(source, runs=runs, generator=steps is not None or best_of > 1)
    if path.suffix in backends:
        if best_of > 1:
            raise UsageError(
                f"--best-of {best_of}: an exported file has no verifier; give the run, or its stage's folder"
            )
        if steps not in (None, 1):
            raise UsageError(f"--steps {steps}: an exported file makes its image in one step")
        return open_artifact(path, backends[path.suffix])
    _check_stage_of(path)
    return open_generator(path, steps=steps, best_of=best_of)


def open_generator(
    path: Path,
    *,
    steps: int | None = None,
    decoder_of: Path | None = None,
    guidance: Mapping[str, Any] | None = None,
    best_of: int = 1,
) -> ImageSource:
    """A generator folder in PyTorch, by Euler steps: as many as a student or a teacher usually takes.

    What makes latents is decoded, by the autoencoder in the folder, in its run, or in the folder `decoder_of`.
    `guidance` are the fields of an edgegen.flow.guidance.Guidance. Of `best_of` samples the verifier beside the folder
    chooses one.
    """
    import torch

    from edgegen.flow.solvers import solve
    from edgegen.models.generator import ONE_STEP_ROLES
    from edgegen.models.guided import load_guided
    from edgegen.models.observed import decoder_in, observed_signature

    loaded = load_guided(path, guidance)
    decoder = decoder_in(decoder_of or shipped.decoder_folder(path))
    signature = observed_signature(loaded.signature, decoder)
    count = steps or (1 if loaded.about.get("role") in ONE_STEP_ROLES else TEACHER_STEPS)

    def samples_of(noise: "Tensor", condition: "Tensor | None") -> "Tensor":
        return solve(loaded.net, noise, condition, solver="euler", steps=count).x

    choose = None if best_of == 1 else partial(_verifier_of(path, best_of).best_of, best_of, samples_of)

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        spec = condition_spec(loaded.signature)
        condition = None if spec is None else torch.from_numpy(inputs[spec.name])
        samples = (choose or samples_of)(torch.from_numpy(inputs["sample"]), condition)
        with torch.no_grad():
            return (samples if decoder is None else decoder(samples)).numpy()

    method = f"PyTorch, {count} step{'s' * (count > 1)}" + (f", best of {best_of}" if best_of > 1 else "")
    names = shipped.class_names(path, signature)
    units = shipped.units_of(path, signature)
    return ImageSource(run, signature, method, path, class_names=names, steps=count, units=units)


def _verifier_of(generator: Path, best_of: int) -> "Verifier":
    """The verifier beside a generator folder. Raises UsageError where there is none."""
    from edgegen.formats.stage_folder import VERIFIER
    from edgegen.models.verifier import load

    folder = generator.parent / VERIFIER
    if not folder.is_dir():
        raise UsageError(
            f"--best-of {best_of}: no folder {VERIFIER} beside {generator}; the methods density_ratio and adversarial "
            "(with critic = 'small') train one, which chooses the best image"
        )
    return load(folder)


def open_artifact(path: Path, backend: str) -> ImageSource:
    """An exported file in its runtime, with the manifest beside it. Raises DataError, ExportError.

    The runtime is in a child process, which ends when nothing uses the source.
    """
    from edgegen.exporters.base import in_parts
    from edgegen.formats.manifest import MANIFEST, checked_entry
    from edgegen.verification.session_process import SessionProcess

    if not path.exists():
        raise DataError(f"no file {path}")
    entry, manifest = checked_entry(path), path.parent / MANIFEST
    if entry is None:
        lacking = f"{MANIFEST} beside it does not list it" if manifest.exists() else f"no {MANIFEST} beside it"
        raise DataError(f"{path}: {lacking}, which says what goes in; `edgegen export` writes both")
    try:
        signature = Signature.from_dict(entry.signature)
    except (KeyError, TypeError) as e:
        raise DataError(f"{manifest}: not a manifest of edgegen's; `edgegen export` writes one") from e
    session = SessionProcess().open(backend, path)
    variant = registry.load("backend", backend).variants.get(entry.row.get("variant"))
    any_size = variant is not None and variant.any_size and not variant.lists_sizes

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        values = sum(array[:1].size for array in inputs.values() if array.ndim)  # of one sample
        together = max(1, min(BATCH, LARGEST_RUN // max(1, values)))
        return in_parts(inputs, lambda part: {"image": _image(session(part), signature)}, largest=together)["image"]

    sizes = None if any_size else _sizes(signature, entry.row.get("details", {}).get("heights_widths", ()))
    names = tuple(entry.class_names) or shipped.class_names(path, signature)
    return ImageSource(run, signature, session.method, path, sizes, names, units=entry.units)


def _image(outputs: Mapping[str, NDArray[Any]], signature: Signature) -> NDArray[Any]:
    """The image among what a file gives, which may be called otherwise than the signature says: uint8 ones are."""
    for name in (signature.outputs[0].name, PIXELS, *(outputs if len(outputs) == 1 else ())):
        if name in outputs:
            return outputs[name]
    raise DataError(
        f"no image '{signature.outputs[0].name}' among what it gives: {', '.join(outputs)}; export it again"
    )


def _sizes(signature: Signature, further: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    first = signature.inputs[0]
    own = ((int(first.shape[2]), int(first.shape[3])),) if first.is_spatial else ()
    return (*own, *((height, width) for height, width in further))


def preload() -> None:
    """Imports torch in a worker before its clock starts."""
    importlib.import_module("torch")


def network(
    *, threads: int, folder: str, steps: int, decoder_of: str = "", guidance: Mapping[str, Any] | None = None
) -> Callable[[], object]:
    """One image of a generator folder in PyTorch, for a worker; decoded as the generator in the folder `decoder_of` is.

    With one thread where the caller has no reason for more: at batch 1 of a small network a second thread mostly waits
    for the first (8 ms in place of 1 ms, measured on 2 cores).
    """
    import torch

    from edgegen.program.inputs import example_inputs

    torch.set_num_threads(threads)
    decoder = Path(decoder_of) if decoder_of else None
    source = open_generator(Path(folder), steps=steps, decoder_of=decoder, guidance=guidance)
    inputs = example_inputs(source.signature, 1, 0)
    return lambda: source.run(inputs)


def _check_stage_of(generator: Path) -> None:
    """Where a generator folder is part of a stage's result, compares its and its verifier's files. Raises DataError."""
    from edgegen.formats.file_hashes import FileHashes
    from edgegen.formats.stage_folder import STAGE, VERIFIER, check_files
    from edgegen.support.storage import read_json

    stage = generator.parent / STAGE
    if not stage.is_file():
        return
    try:
        files = {
            name: {"sha256": facts["sha256"]}
            for name, facts in read_json(stage)["files"].items()
            if name.startswith((f"{generator.name}/", f"{VERIFIER}/"))
        }
    except (KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{stage}: not the record of a stage; run the recipe again") from e
    check_files(stage.parent, files, hashes=FileHashes())
