"""The child process's part of a build: from a saved program to the file, by the vendor's tools."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.artifacts.bisect_rewrites import refusal_of, write_what_runs
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.exporters.base import Backend
from edgegen.program.inputs import InputSource, RealInputs
from edgegen.quantize.calibration import calibration_batches
from edgegen.recipe import Export, Quantize
from edgegen.support.storage import load_tensors
from edgegen.types import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import fx
    from torch.export import ExportedProgram

CANONICAL = ("resampling", "pointwise", "conv_bias")  # the rewrites that come before a quantization of the program


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
    calibration: str | None,
) -> dict[str, Any]:
    """The child's part of `build`: from a saved program to the file `path` and its extra files.

    `calibration` is a safetensors file of inputs that the user gave. Returns what `write_what_runs` returns.
    """
    from edgegen.exporters.rewrites import apply
    from edgegen.program.generator import SavedProgram, load_graph

    file_target, specs = Target(**target), Signature.from_dict(signature)
    variant, scheme_cell = file_target.kind(), file_target.cell()
    export = Export.model_validate(options)
    real = None if calibration is None else RealInputs(_arrays(Path(calibration)), {})
    if scheme_cell.stage != "float":  # quantizers and converters of files need plain convolutions
        export = export.model_copy(update={"winograd": False})
    if scheme_cell.stage == "program":
        rewrites = [name for name in rewrites if name not in CANONICAL]

    def write(names: Sequence[str]) -> str:
        graph = load_graph(SavedProgram(Path(program), unfolded), specs)
        if variant.lists_sizes:
            _try_sizes(graph, specs, export.heights_widths)
        if scheme_cell.stage == "program":
            source = InputSource(specs, seed, real)
            graph = _quantized(graph, source, file_target, Quantize.model_validate(quantization))
        rewritten = apply(graph, names, signature=specs, batch=variant.batch, any_size=variant.any_size)
        del graph
        _write(rewritten, Path(path), file_target, signature=specs, metadata=metadata, options=export)
        del rewritten
        return refusal_of(Path(path), file_target, specs)

    return write_what_runs(write, rewrites)


def _arrays(path: Path) -> dict[str, "NDArray[Any]"]:
    return {name: tensor.numpy() for name, tensor in load_tensors(path).items()}


def _quantized(graph: "fx.GraphModule", source: InputSource, target: Target, options: Quantize) -> "fx.GraphModule":
    from edgegen.exporters.rewrites import apply

    # Whatever becomes a convolution becomes one before quantization, in the same way for every runtime.
    canonical = apply(graph, CANONICAL, signature=source.signature, batch=None, any_size=target.kind().any_size)
    # PT2E observes weights when they are used, so the program must run once even where nothing is calibrated.
    calibration = calibration_batches(source, samples=options.samples or 1)
    quantized: fx.GraphModule = target.cell().load()(canonical, target.scheme, calibration, options)
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
    """The backend's file of a rewritten program; a scheme that quantizes files gets the float file first."""
    scheme_cell = target.cell()
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
        )

    if scheme_cell.stage != "file":
        write(path)
        return
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        float_file = Path(temporary) / path.name
        write(float_file)
        scheme_cell.load()(float_file, path)


def _try_sizes(graph: "fx.GraphModule", signature: Signature, sizes: Sequence[tuple[int, int]]) -> None:
    """Raises ExportError for a size that the network does not take, before minutes of work on a file for it."""
    from edgegen.program.capture import reference
    from edgegen.program.inputs import example_inputs

    for height, width in sizes:
        try:
            reference(graph, example_inputs(signature.resized(height, width), 1, 0))
        except (RuntimeError, ValueError) as e:
            reason = str(e).strip().splitlines()[0]
            raise ExportError(f"the network does not take {height}x{width}: {reason}") from e
