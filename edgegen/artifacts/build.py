"""One artifact from one generator: capture; in a child process quantize, rewrite and lower; the artifact's record."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.artifacts.bisect_rewrites import fault_of, trial_inputs, write_what_is_true
from edgegen.artifacts.target import Target
from edgegen.exporters.base import DEFAULTS, Backend
from edgegen.quantize.calibration import calibration_batches, enough_samples, fitting_batch
from edgegen.quantize.schemes import DEFAULT_OPTIONS
from edgegen.quantize.support_matrix import cell
from edgegen.recipe import Export, Quantize
from edgegen.support import isolation
from edgegen.support.isolation import Child
from edgegen.support.storage import atomic_path, nbytes_of, sha256_of
from edgegen.types import Artifact, Parity, SchemeCell, Signature

if TYPE_CHECKING:
    from torch import fx, nn
    from torch.export import ExportedProgram

    from edgegen.program.generator import SavedProgram

CANONICAL = ("modulated_conv", "resampling", "pointwise", "conv_bias", "transposed_conv")  # before a quantization


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
    rewrites: Sequence[str] | None = None,
    memory_limit: int | None = None,
    child: Child | None = None,
) -> BuildResult:
    """Write the file of a folded generator into `folder`, by the vendor's tools in a child process.

    Args:
        source: the folded generator, or its saved program; of any size for a variant of any size.
        signature: of its inputs and output.
        name: first part of the file's name.
        target: runtime, scheme and variant.
        folder: where the file goes.
        seed: draws the calibration's noise.
        metadata: goes into the file under edgegen's namespace, with name, backend and scheme added.
        quantization: how the numbers of a compressed file are chosen.
        options: of the file itself: opset, oldest system, sizes.
        rewrites: names of edgegen.exporters.rewrites; None takes the backend's own.
        memory_limit: bytes that the child process may hold; None: no limit.
        child: a process that waits for this work; None starts one.

    Returns:
        The artifact's record, and the seconds and memory that it took.

    Raises:
        UsageError: an unknown backend, an empty cell or an unknown layer.
        ExportError: a vendor's tool failed or died.
        StorageError: the disk refused.
    """
    samples = (quantization.samples or enough_samples(signature)) if cell_of(target).calibrated else 0
    file = target.file(name)
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
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
            "quantization": {**quantization.model_dump(mode="json"), "samples": samples or None},
            "seed": seed,
        }
        outcome = isolation.call("edgegen.artifacts.build:lower", job, memory_limit=memory_limit, child=child)
        extra = _move_files(output, folder, file)
    artifact = _artifact(folder, target, file, extra, samples=samples, options=options, left_out=outcome.value)
    return BuildResult(artifact, outcome.seconds, outcome.peak_rss_bytes)


def cell_of(target: Target) -> SchemeCell:
    """The cell of a target's scheme on its backend."""
    return cell(target.scheme, target.backend)


def _rewrites(target: Target) -> list[str]:
    backend: Backend = registry.load("backend", target.backend)
    return list(backend.rewrites)


def _metadata(metadata: Mapping[str, str], name: str, target: Target) -> dict[str, str]:
    """The metadata of the file: the caller's, with name, backend, scheme and precision added."""
    scheme_cell = cell_of(target)
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
    batch = None if cell_of(target).stage == "program" else kind.batch
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


def _artifact(
    folder: Path,
    target: Target,
    file: str,
    extra: Mapping[str, Mapping[str, Any]],
    *,
    samples: int,
    options: Export,
    left_out: Mapping[str, Any],
) -> Artifact:
    variant, scheme_cell = target.kind(), cell_of(target)
    return Artifact(
        file=file,
        backend=target.backend,
        scheme=target.scheme,
        nbytes=nbytes_of(folder / file) + extra.get(f"{file}.data", {}).get("nbytes", 0),
        sha256=sha256_of(folder / file),
        engine=scheme_cell.engine,
        variant=target.variant,
        details={
            "batch": variant.batch,
            "precision": scheme_cell.precision,
            "calibration_samples": samples,
            "extra_files": extra,
            **({"caution": scheme_cell.caution} if scheme_cell.caution else {}),
            **({"left_out": left_out} if left_out else {}),
            **({"heights_widths": list(options.heights_widths)} if variant.lists_sizes else {}),
        },
    )


def preload(*, name: str) -> None:
    """Imports and sets up what `lower` uses, in a child process that waits for its program; `name` is the backend's.

    It lowers a tiny network, because torch.export and the vendors' tools import modules and build tables at first use.
    """
    from torch import nn

    from edgegen.exporters.rewrites import apply
    from edgegen.program.capture import capture
    from edgegen.program.generator import load_graph, save_program

    backend: Backend = registry.load("backend", name)
    variant, signature = backend.variants[""], Signature.of(channels=1, size=8, num_classes=0)
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        program = capture(nn.Conv2d(1, 1, 3, padding=1).eval(), signature, batch=None)
        saved = save_program(program, Path(folder) / "tiny.pt2", unfolded=True)
        tiny = apply(load_graph(saved, signature), list(backend.rewrites), signature=signature, batch=variant.batch)
        path = Path(folder) / f"tiny{variant.suffix}"
        precision = next(iter(backend.cells.values())).precision
        backend.lower(tiny, path, signature=signature, precision=precision, metadata={})


def lower(
    *,
    program: str,
    unfolded: bool,
    signature: Mapping[str, Any],
    target: Mapping[str, str],
    path: str,
    metadata: Mapping[str, str],
    options: Mapping[str, Any],
    rewrites: Sequence[str],
    quantization: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """The child's part of `build`: from a saved program to the file `path` and its extra files.

    Returns which rewrites and graph passes are not in the file, with the reason, and nothing where all are.
    """
    from edgegen.exporters.rewrites import apply
    from edgegen.program.capture import reference, try_sizes
    from edgegen.program.generator import SavedProgram, load_graph

    file_target, specs = Target(**target), Signature.from_dict(signature)
    variant, scheme_cell = file_target.kind(), cell_of(file_target)
    export = Export.model_validate(options)
    if scheme_cell.stage != "float":  # quantizers and converters of files need plain convolutions
        export = export.model_copy(update={"winograd": False})
    if scheme_cell.stage == "program":
        rewrites = [name for name in rewrites if name not in CANONICAL]

    backend: Backend = registry.load("backend", file_target.backend)
    passes = backend.passes()

    def load() -> "fx.GraphModule":
        return load_graph(SavedProgram(Path(program), unfolded), specs)

    def write(names: Sequence[str]) -> str:
        graph = load()
        if scheme_cell.stage == "program":
            graph = _quantized(graph, specs, file_target, Quantize.model_validate(quantization), seed=seed)
        inputs = trial_inputs(graph, specs)
        expected = reference(graph, inputs) if backend.runs_here() else None
        chosen = [name for name in names if name in rewrites]
        rewritten = apply(graph, chosen, signature=specs, batch=variant.batch, any_size=variant.any_size)
        del graph
        left_out = [name for name in passes if name not in names]
        _write(
            rewritten, Path(path), file_target, signature=specs, metadata=metadata, options=export, left_out=left_out
        )
        del rewritten
        return "" if expected is None else fault_of(Path(path), file_target, specs, inputs, expected)

    if variant.lists_sizes:
        try_sizes(load(), specs, export.heights_widths)
    return write_what_is_true(write, {"rewrites": rewrites, "passes": passes})


def _quantized(
    graph: "fx.GraphModule", signature: Signature, target: Target, options: Quantize, *, seed: int
) -> "fx.GraphModule":
    from edgegen.exporters.rewrites import apply

    # Whatever becomes a convolution becomes one before quantization, in the same way for every runtime.
    canonical = apply(graph, CANONICAL, signature=signature, batch=None, any_size=target.kind().any_size)
    # PT2E observes weights when they are used, so the program must run once even where nothing is calibrated.
    samples, batch = options.samples or 1, fitting_batch(signature)
    calibration = calibration_batches(signature, samples=samples, seed=seed, batch=batch)
    quantized: fx.GraphModule = cell_of(target).load()(canonical, target.scheme, calibration, options)
    return quantized


def _write(
    program: "ExportedProgram",
    path: Path,
    target: Target,
    *,
    signature: Signature,
    metadata: Mapping[str, str],
    options: Export,
    left_out: Sequence[str],
) -> None:
    """The backend's file of a rewritten program; a scheme that quantizes files gets the float file first."""
    scheme_cell = cell_of(target)
    backend: Backend = registry.load("backend", target.backend)
    if path.is_dir():  # a package that was tried before
        shutil.rmtree(path)

    def write(to: Path) -> None:
        backend.lower(
            program,
            to,
            signature=signature,
            precision=scheme_cell.precision,
            metadata=metadata,
            options=options,
            variant=target.variant,
            left_out=left_out,
        )

    if scheme_cell.stage != "file":
        write(path)
        return
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        float_file = Path(temporary) / path.name
        write(float_file)
        scheme_cell.load()(float_file, path)


def unchecked(artifacts: Sequence[Artifact]) -> dict[str, Parity]:
    """By file, the parity in a manifest of files that nothing has run yet."""
    floors = {artifact.file: cell(artifact.scheme, artifact.backend).floor_db for artifact in artifacts}
    return {file: Parity.not_checked("nothing ran this file", floor_db) for file, floor_db in floors.items()}
