"""One artifact from one generator: capture, quantize, rewrite, lower in a process of its own, and a manifest."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.artifacts.bisect_rewrites import refusal_of, write_what_runs
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.exporters.base import DEFAULTS, Backend
from edgegen.quantize.calibration import calibration_batches, enough_samples, fitting_batch
from edgegen.quantize.schemes import AS_USUAL
from edgegen.quantize.support_matrix import cell
from edgegen.recipe import Export, Quantize
from edgegen.support import isolation
from edgegen.support.isolation import Child
from edgegen.support.storage import atomic_path, nbytes_of, sha256_of
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Artifact, Parity, SchemeCell, Signature

if TYPE_CHECKING:
    from torch import fx, nn
    from torch.export import ExportedProgram

    from edgegen.program.generator import SavedProgram

CANONICAL = ("resampling", "pointwise", "conv_bias")  # the rewrites that come before a quantization of the program


@dataclass(frozen=True)
class BuildResult:
    """An artifact, and what making it took: not part of the manifest, which repeats byte by byte."""

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
    quantization: Quantize = AS_USUAL,
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
        saved = _saved(source, signature, target, Path(temporary) / "program.pt2")
        (made := Path(temporary) / "made").mkdir()
        job = {
            "program": str(saved.path),
            "unfolded": saved.unfolded,
            "signature": signature.to_dict(),
            "target": asdict(target),
            "path": str(made / file),
            "metadata": _metadata(metadata, name, target),
            "options": options.model_dump(mode="json"),
            "rewrites": _rewrites(target) if rewrites is None else list(rewrites),
            "quantization": {**quantization.model_dump(mode="json"), "samples": samples or None},
            "seed": seed,
        }
        done = isolation.call("edgegen.artifacts.build:lower", job, memory_limit=memory_limit, child=child)
        extra = _put(made, folder, file)
    artifact = _artifact(folder, target, file, extra, samples=samples, options=options, left_out=done.value)
    return BuildResult(artifact, done.seconds, done.peak_rss_bytes)


def cell_of(target: Target) -> SchemeCell:
    """The cell of a target's scheme on its backend."""
    return cell(target.scheme, target.backend)


def _rewrites(target: Target) -> list[str]:
    backend: Backend = registry.load("backend", target.backend)
    return list(backend.rewrites)


def _metadata(metadata: Mapping[str, str], name: str, target: Target) -> dict[str, str]:
    """What goes into the file: the caller's words, and what the file is."""
    scheme_cell = cell_of(target)
    precision = scheme_cell.precision if scheme_cell.stage == "float" else target.scheme
    return {**metadata, "name": name, "backend": target.backend, "scheme": target.scheme, "precision": precision}


def _saved(source: "nn.Module | SavedProgram", signature: Signature, target: Target, path: Path) -> "SavedProgram":
    from edgegen.program.capture import capture  # here, so that a mistyped cell answers before torch is imported
    from edgegen.program.generator import SavedProgram, save_program

    if isinstance(source, SavedProgram):
        return source
    kind = target.kind()
    # What is calibrated runs whole batches, whatever its file takes.
    batch = None if cell_of(target).stage == "program" else kind.batch
    return save_program(capture(source, signature, batch=batch, any_size=kind.any_size), path)


def _put(made: Path, folder: Path, file: str) -> dict[str, dict[str, Any]]:
    """Moves what the child made into `folder`; size and SHA-256 of all but the file itself."""
    extra: dict[str, dict[str, Any]] = {
        path.name: {"nbytes": nbytes_of(path), "sha256": sha256_of(path)}
        for path in sorted(made.iterdir())
        if path.name != file
    }
    for name in (*extra, file):  # the file itself last: where it is, all is there
        with atomic_path(folder / name) as path:
            shutil.move(made / name, path)
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
    kind, chosen = target.kind(), cell_of(target)
    return Artifact(
        file=file,
        backend=target.backend,
        scheme=target.scheme,
        nbytes=nbytes_of(folder / file) + extra.get(f"{file}.data", {}).get("nbytes", 0),
        sha256=sha256_of(folder / file),
        engine=chosen.engine,
        variant=target.variant,
        details={
            "batch": kind.batch,
            "precision": chosen.precision,
            "calibration_samples": samples,
            "extra_files": extra,
            **({"caution": chosen.caution} if chosen.caution else {}),
            **({"left_out": left_out} if left_out else {}),
            **({"heights_widths": list(options.heights_widths)} if kind.lists_sizes else {}),
        },
    )


def preload(*, backend: str) -> None:
    """What `lower` imports and sets up once, for a child process that waits for its program meanwhile.

    A tiny network is lowered: torch.export and the vendors' tools import much, and build tables, at their first use.
    """
    from torch import nn

    from edgegen.exporters.rewrites import apply
    from edgegen.program.capture import capture
    from edgegen.program.fold import fold_program
    from edgegen.program.generator import save_program

    loaded: Backend = registry.load("backend", backend)
    variant, signature = loaded.variants[""], Signature.of(channels=1, size=8, num_classes=0)
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        program = capture(nn.Conv2d(1, 1, 3, padding=1).eval(), signature, batch=None)
        saved = save_program(program, Path(folder) / "tiny.pt2")
        graph = fold_program(_load(saved.path), signature)
        tiny = apply(graph, list(loaded.rewrites), signature=signature, batch=variant.batch)
        path = Path(folder) / f"tiny{variant.suffix}"
        precision = next(iter(loaded.cells.values())).precision
        loaded.lower(tiny, path, signature=signature, precision=precision, metadata={})


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
    """The child's part of `build`: from a saved program to the file `path`, and what belongs beside it.

    Gives what `write_what_runs` gives.
    """
    from edgegen.exporters.rewrites import apply
    from edgegen.program.fold import fold_program

    wanted, about = Target(**target), Signature.from_dict(signature)
    kind, chosen = wanted.kind(), cell_of(wanted)
    export = Export.model_validate(options)
    if chosen.stage != "float":  # what quantizes or converts the file wants plain convolutions
        export = export.model_copy(update={"winograd": False})
    if chosen.stage == "program":
        rewrites = [name for name in rewrites if name not in CANONICAL]

    def write(names: Sequence[str]) -> str:
        loaded = _load(Path(program))
        graph = fold_program(loaded, about) if unfolded else loaded.module(check_guards=False)
        del loaded
        if kind.lists_sizes:
            _try_sizes(graph, about, export.heights_widths)
        if chosen.stage == "program":
            graph = _quantized(graph, about, wanted, Quantize.model_validate(quantization), seed=seed)
        captured = apply(graph, names, signature=about, batch=kind.batch, any_size=kind.any_size)
        del graph
        _write(captured, Path(path), wanted, signature=about, metadata=metadata, options=export)
        del captured
        return refusal_of(Path(path), wanted, about)

    return write_what_runs(write, rewrites)


def _quantized(
    graph: "fx.GraphModule", signature: Signature, target: Target, options: Quantize, *, seed: int
) -> "fx.GraphModule":
    from edgegen.exporters.rewrites import apply

    # What turns into convolutions is to be one before it is quantized, and alike for every runtime.
    first = apply(graph, CANONICAL, signature=signature, batch=None, any_size=target.kind().any_size)
    # What is not calibrated has to run once, too: PT2E sees weights as they are used.
    samples, batch = options.samples or 1, fitting_batch(signature)
    calibration = calibration_batches(signature, samples=samples, seed=seed, batch=batch)
    quantized: fx.GraphModule = cell_of(target).load()(first, target.scheme, calibration, options)
    return quantized


def _write(
    program: "ExportedProgram",
    path: Path,
    target: Target,
    *,
    signature: Signature,
    metadata: Mapping[str, str],
    options: Export,
) -> None:
    """The backend's file of a rewritten program; what quantizes a file goes by way of the float one."""
    chosen = cell_of(target)
    backend: Backend = registry.load("backend", target.backend)
    if path.is_dir():  # a package that was tried before
        shutil.rmtree(path)

    def write(to: Path) -> None:
        backend.lower(
            program,
            to,
            signature=signature,
            precision=chosen.precision,
            metadata=metadata,
            options=options,
            variant=target.variant,
        )

    if chosen.stage != "file":
        write(path)
        return
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        floating = Path(temporary) / path.name
        write(floating)
        chosen.load()(floating, path)


def _try_sizes(graph: "fx.GraphModule", signature: Signature, sizes: Sequence[tuple[int, int]]) -> None:
    """Raises ExportError for a size that the network does not take, before minutes go into a file of it."""
    from edgegen.program.capture import reference
    from edgegen.program.inputs import example_inputs

    for height, width in sizes:
        try:
            reference(graph, example_inputs(signature.resized(height, width), 1, 0))
        except (RuntimeError, ValueError) as e:
            reason = str(e).strip().splitlines()[0]
            raise ExportError(f"the network does not take {height}x{width}: {reason}") from e


def _load(path: Path) -> "ExportedProgram":
    """What a parent saved a moment ago; the file of a stranger goes through edgegen.models.sources."""
    import torch

    with quiet(EXPORT):
        return torch.export.load(path)


def unchecked(artifacts: Sequence[Artifact]) -> dict[str, Parity]:
    """By file, what a manifest says of files that nothing has run yet."""
    floors = {one.file: cell(one.scheme, one.backend).floor_db for one in artifacts}
    return {file: Parity.not_checked("nothing ran this file", floor_db) for file, floor_db in floors.items()}
