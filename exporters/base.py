"""The interface of a backend: `lower` a captured program to a file, `open` the file as a session of named arrays."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegen import registry
from edgegen.recipe import Export
from edgegen.types import SchemeCell, Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Precision = Literal["fp32", "fp16"]
Arrays = dict[str, NDArray[Any]]


DEFAULTS = Export()


@dataclass(frozen=True)
class Variant:
    """One kind of file of a backend: what it is for, how its name ends, and its batch (None: a dynamic axis).

    `any_size`: its program is captured with dynamic height and width. `lists_sizes`: of these it takes the signature's
    own and those in `Export.heights_widths`, no others. `pixels`: how the uint8 image lies that it gives in place of
    numbers, such as "NHWC". `methods`: what can be called in it, where that is more than one thing; `generate` is there
    where `Export.generate` asks for it and the output is an image. `input_dtypes`: what its inputs have in place of the
    signature's types. `cells`: its own quantization schemes, in place of the backend's. `simulator`: what
    stands here for its device, where that is a simulator, which is slow and gives no latency.
    """

    about: str
    suffix: str
    batch: int | None
    any_size: bool = False
    lists_sizes: bool = False
    pixels: str = ""
    methods: tuple[str, ...] = ()
    input_dtypes: Mapping[str, str] = field(default_factory=dict)
    cells: Mapping[str, SchemeCell] = field(default_factory=dict)
    simulator: str = ""


class Session(Protocol):
    """An opened artifact: named arrays of any batch size in, named arrays of the same batch size out.

    One may have an attribute `further`: by name, a session of what else can be run in the artifact, such as the method
    "generate" of a `.pte` file, or what was compiled for another chip.
    """

    @property
    def method(self) -> str:
        """What runs it, for the report: "onnxruntime 1.32.0 CPU"."""

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Raises ExportError where the runtime refuses the inputs."""


def further(session: Any) -> "Mapping[str, Session]":
    """The sessions of what else can be run in its artifact, by name."""
    sessions: Mapping[str, Session] = getattr(session, "further", {})
    return sessions


class Backend(Protocol):
    """One runtime's files. Add one by a module in this folder that ends with `BACKEND = ...()`, and a registry line."""

    @property
    def variants(self) -> Mapping[str, Variant]:
        """The kinds of file by name; "" is the plain one."""

    @property
    def cells(self) -> Mapping[str, SchemeCell]:
        """The quantization schemes by name, the default first. Reading them imports neither torch nor the vendor."""

    @property
    def rewrites(self) -> tuple[str, ...]:
        """The names in edgegen.exporters.rewrites that made this runtime faster (examples/bench_export.py)."""

    @property
    def snippet(self) -> str:
        """Lines of Python that run a plain file, for the model card, with what `str.format` fills in:

        {file} and {output} are names, {inputs} is a dict of numpy arrays, {tensors} a list of torch tensors.
        """

    def passes(self) -> tuple[str, ...]:
        """The graph passes over its own file, its vendor's and ours, that `lower` can leave out."""

    def runs_here(self, variant: str = "") -> bool:
        """Whether a runtime executes such files on this machine: not edgegen's own evaluator, nor a simulator."""

    def check_options(self, scheme: str, options: Export) -> None:
        """Raises ExportError where a file of `scheme` cannot be made with `options`; before any work."""

    def lower(
        self,
        program: "ExportedProgram",
        path: Path,
        *,
        signature: Signature,
        precision: Precision,
        metadata: Mapping[str, str],
        options: Export = DEFAULTS,
        variant: str = "",
        left_out: Collection[str] = (),
    ) -> Mapping[str, Any] | None:
        """Write `path` from a program of the variant's batch. The keys of `metadata` come without a namespace.

        `left_out` are those of `passes` that are not to run. Returns facts for the artifact's `details`, if any.

        Raises ExportError where the vendor's converter fails, MissingExtraError where it is not installed.
        """

    def complete(self, path: Path, *, variant: str, options: Export = DEFAULTS) -> dict[str, Any]:
        """Make what else belongs to the file that `lower` wrote, once it is known to be true: further files beside it.

        Returns facts about them, for the artifact's `details`. Raises ExportError where the vendor's compiler fails.
        """

    def open(self, path: Path) -> Session:
        """Load the file on this machine. Raises ExportError where it cannot be run here."""


def speed_passes(backend: Backend, variant: str) -> Mapping[str, bool]:
    """Those of its passes that only make float files faster, and whether they are on in a file of `variant`.

    `edgegen tune` tries them. A backend need not have the method.
    """
    passes: Mapping[str, bool] = backend.speed_passes(variant) if hasattr(backend, "speed_passes") else {}
    return passes


def switches(backend: Backend) -> list[str]:
    """What `Export.rewrites` may switch on or off in its files."""
    from edgegen.exporters.rewrites import names

    return sorted({*names(), *speed_passes(backend, "")})


def backends_by_suffix() -> dict[str, str]:
    """By the suffix of a file, the name of the backend that makes and opens such files; built-in ones come first."""
    return {
        variant.suffix: name
        for name in registry.names("backend")
        for variant in registry.load("backend", name).variants.values()
    }


def pixels(program: "ExportedProgram", signature: Signature, batch: int | None) -> tuple[Signature, "ExportedProgram"]:
    """`program` with its image as uint8 (batch, height, width, channels), and the signature of that.

    `batch` is the one it was captured with. Raises ExportError where its output is no image.
    """
    from edgegen.program.capture import capture
    from edgegen.program.one_step import ToPixels, pixels_signature

    changed = pixels_signature(signature)
    network = ToPixels(program.module(check_guards=False), signature.outputs[0].image_range)
    return changed, capture(network, changed, batch=batch)


def one_by_one(inputs: Mapping[str, NDArray[Any]], run: Callable[[Arrays], Arrays]) -> Arrays:
    """Run a static batch-1 file on every sample of `inputs` in turn and stack the outputs along the batch."""
    return in_parts(inputs, run, largest=1)


def in_parts(inputs: Mapping[str, NDArray[Any]], run: Callable[[Arrays], Arrays], *, largest: int) -> Arrays:
    """Run at most `largest` samples of `inputs` at a time, and stack the outputs along the batch.

    An input without axes (a scalar) is the same for all samples.
    """
    count = next((len(values) for values in inputs.values() if values.ndim), 1)
    outputs = [
        run({name: values[first : first + largest] if values.ndim else values for name, values in inputs.items()})
        for first in range(0, count, largest)
    ]
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


OPERATOR = re.compile(r"aten\.\w+(?:\.\w+)?")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
# What wraps the cause and does not say it: ExecuTorch's and onnx_ir's passes, torch.onnx's steps.
WRAPPER = re.compile(r"after the following passes|This is step \d/\d")
PASS = re.compile(r"when running the '<?(?:\w+\.)*(\w+)")
NODE = re.compile(r"translating node %(\w+)")


def refusal(tool: str, error: Exception, program: "ExportedProgram | None" = None) -> str:
    """Why `tool` failed, in one line: the operator that it lacks, or the first line of its message with letters.

    Where that says no cause, the innermost one, with the pass or the operator that it came from, and the module of
    `program` that calls the operator.
    """
    text = STYLE.sub("", str(error))
    if "not in Core ATen opset" in text or "No ONNX function found" in text or "No decompositions registered" in text:
        operator = OPERATOR.search(text)
        if operator:
            return f"{tool} has no form of {operator[0]}: write the network without it, or try another runtime"
    place = ""
    if WRAPPER.search(text):
        causes = _causes(error)
        place = _place(causes, program)
        text = f"{type(causes[-1]).__name__}: {STYLE.sub('', str(causes[-1]))}"
    lines = [" ".join(line.split()) for line in text.splitlines() if any(map(str.isalpha, line))]
    return f"{tool} could not lower the program{place}: {lines[0] if lines else type(error).__name__}"


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    return causes


def _place(causes: Sequence[BaseException], program: "ExportedProgram | None") -> str:
    """Where in the program, or in the tool, as far as the messages say it."""
    text = "\n".join(str(cause) for cause in causes)
    node = NODE.search(text)
    if node is None:
        passes = PASS.findall(text)
        return f" (its {passes[-1]})" if passes else ""
    from edgegen.program.module_paths import block_of  # here, because it imports torch

    operator = OPERATOR.search(text, node.end())
    nodes = {} if program is None else {known.name: known for known in program.graph.nodes}
    block = block_of(nodes[node[1]]) if node[1] in nodes else None
    return f" at {operator[0] if operator else node[1]}" + (f" of {block}" if block else "")
