"""The child process's part of a build: from a saved program to the file, by the vendor's tools."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.artifacts.bisect_rewrites import fault_of, trial_inputs, write_what_is_true
from edgegen.artifacts.target import Target
from edgegen.exporters.base import Backend
from edgegen.exporters.growth import Growth
from edgegen.exporters.rewrites import names as all_rewrites
from edgegen.program.inputs import InputSource, RealInputs
from edgegen.quantize.calibration import calibration_batches
from edgegen.recipe import Export, Quantize
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import load_tensors
from edgegen.types import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import fx
    from torch.export import ExportedProgram

# The rewrites that come before a quantization of the program.
CANONICAL = ("modulated_conv", "resampling", "pointwise", "conv_bias", "transposed_conv")
PLAIN_CONVOLUTIONS = ("winograd", "prelu")  # passes that quantizers and converters of files do not get


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
    with temporary_folder() as folder:
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

    `calibration` is a safetensors file of inputs that the user gave. Returns `left_out`, the rewrites and graph passes
    that are not in the file, with the reason, where there are some; of a file of float16 `float32_layers`, which a safe
    one leaves in float32, or `overflow`, the layers that a plain one is too small for.
    """
    from edgegen.exporters.rewrites import apply
    from edgegen.program.capture import reference, try_sizes
    from edgegen.program.generator import SavedProgram, load_graph

    file_target, specs = Target(**target), Signature.from_dict(signature)
    variant, scheme_cell = file_target.kind(), file_target.cell()
    export = Export.model_validate(options)
    source = InputSource(specs, seed, None if calibration is None else RealInputs(_arrays(Path(calibration)), {}))
    backend: Backend = registry.load("backend", file_target.backend)
    rewrites, passes = of_stage(scheme_cell.stage, export, rewrites, backend.passes())
    facts: dict[str, Any] = {}

    def load() -> "fx.GraphModule":
        return load_graph(SavedProgram(Path(program), unfolded), specs)

    def write(names: Sequence[str]) -> str:
        graph = load()
        if scheme_cell.stage == "program":
            canonical = export.chosen(CANONICAL, ())
            graph = quantized(graph, canonical, source, file_target, Quantize.model_validate(quantization))
        inputs = trial_inputs(graph, source)
        expected = reference(graph, inputs) if backend.runs_here() else None
        growth, kept = Growth(export.added_weight_bytes), [name for name in names if name in rewrites]
        rewritten = apply(graph, kept, signature=specs, batch=variant.batch, any_size=variant.any_size, growth=growth)
        facts.clear()
        del graph
        if file_target.is_float16():
            facts.update(_fit_float16(rewritten, source, is_safe=export.fp16 == "safe"))
        others: dict[str, Any] = {"left_out": [name for name in backend.passes() if name not in names]}
        others |= {"signature": specs, "metadata": metadata, "options": export}
        facts.update(growth.facts(), **_write(rewritten, Path(path), file_target, **others))
        del rewritten
        return "" if expected is None else fault_of(Path(path), file_target, specs, inputs, expected)

    if variant.lists_sizes:
        try_sizes(load(), specs, export.heights_widths)
    left_out = write_what_is_true(write, {"rewrites": rewrites, "passes": passes})
    facts |= backend.complete(Path(path), variant=file_target.variant, options=export)
    return {"left_out": left_out, **facts} if left_out else facts


def of_stage(
    stage: str, options: Export, rewrites: Sequence[str], passes: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """The rewrites and the graph passes of a cell of this stage, as the options have them."""
    plain = () if stage == "float" else PLAIN_CONVOLUTIONS
    before = CANONICAL if stage == "program" else ()
    default, known = ([name for name in names if name not in before] for names in (rewrites, all_rewrites()))
    return options.chosen(default, known), options.chosen([name for name in passes if name not in plain], passes)


def _fit_float16(program: "ExportedProgram", source: InputSource, *, is_safe: bool) -> dict[str, Any]:
    """Notes what has to stay float32, where it is asked for; else says what float16 is too small for."""
    from edgegen.program.float16_range import FEW_SAMPLES, SAMPLES, note_large, overflow

    if is_safe:
        return {"float32_layers": note_large(program, calibration_batches(source, samples=SAMPLES))}
    reason = overflow(program.module(check_guards=False), calibration_batches(source, samples=FEW_SAMPLES))
    return {"overflow": reason} if reason else {}


def _arrays(path: Path) -> dict[str, "NDArray[Any]"]:
    return {name: tensor.numpy() for name, tensor in load_tensors(path).items()}


def quantized(
    graph: "fx.GraphModule", rewrites: Sequence[str], source: InputSource, target: Target, options: Quantize
) -> "fx.GraphModule":
    """The graph with the numbers of the target's scheme, after `rewrites`; PT2E calibrates it on `source`."""
    from edgegen.exporters.rewrites import apply

    # Whatever becomes a convolution becomes one before quantization, in the same way for every runtime.
    canonical = apply(graph, rewrites, signature=source.signature, batch=None, any_size=target.kind().any_size)
    # PT2E observes weights when they are used, so the program must run once even where nothing is calibrated.
    calibration = calibration_batches(source, samples=options.samples or 1)
    rounded: fx.GraphModule = target.cell().load()(canonical, target.scheme, calibration, options)
    return rounded


def _write(
    program: "ExportedProgram",
    path: Path,
    target: Target,
    *,
    signature: Signature,
    metadata: Mapping[str, str],
    options: Export,
    left_out: Sequence[str],
) -> Mapping[str, Any]:
    """The backend's file of a rewritten program, and what it says of it.

    A scheme that quantizes files gets the float file first.
    """
    scheme_cell = target.cell()
    backend: Backend = registry.load("backend", target.backend)
    if path.is_dir():  # a package that was tried before
        shutil.rmtree(path)

    def write(to: Path) -> Mapping[str, Any]:
        facts = backend.lower(
            program,
            to,
            signature=signature,
            precision=scheme_cell.precision,
            metadata=metadata,
            options=options,
            variant=target.variant,
            left_out=left_out,
        )
        return facts or {}

    if scheme_cell.stage != "file":
        return write(path)
    with temporary_folder() as temporary:
        float_file = Path(temporary) / path.name
        facts = write(float_file)
        scheme_cell.load()(float_file, path)
        return facts
