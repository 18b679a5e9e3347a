"""Export targets (a backend, a scheme, a variant), and their validation before any work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgegen import registry
from edgegen.errors import ExportError, UsageError, unknown_name
from edgegen.exporters.base import DEFAULTS, Backend, Variant, switches
from edgegen.quantize.budget import Budget, require_mixed
from edgegen.quantize.schemes import DEFAULT_OPTIONS, GRIDS
from edgegen.quantize.support_matrix import cell, cells
from edgegen.recipe import FLOAT_SCHEMES, Export, Files, Quantize, Recipe
from edgegen.support.extras import EXTRAS, require
from edgegen.types import LAYOUTS, Artifact, SchemeCell, Signature, TensorSpec


@dataclass(frozen=True)
class Target:
    """What to make: a runtime, a scheme of the matrix for it, and which kind of its files."""

    backend: str
    scheme: str
    variant: str = ""

    @staticmethod
    def parse(text: str) -> "Target":
        """ "onnx", "onnx-w8a8", "onnx:batch1", "coreml-fp32:generate": BACKEND[-SCHEME][:VARIANT].

        Without a scheme it is the first of the backend's cells. Raises UsageError for an unknown part.
        """
        cell_name, _, variant = text.partition(":")
        backend, _, scheme = cell_name.partition("-")
        if backend not in registry.names("backend"):
            raise UsageError(unknown_name("backend", backend, registry.names("backend")))
        if not scheme:
            scheme = next(iter(Target(backend, scheme, variant).kind().cells or cells(backend)))
        target = Target(backend, scheme, variant)
        target.cell()
        target.kind()
        return target

    def kind(self) -> Variant:
        """The variant's record. Raises UsageError that lists those of the backend."""
        variants: Mapping[str, Variant] = registry.load("backend", self.backend).variants
        if self.variant not in variants:
            raise UsageError(unknown_name(f"{self.backend} variant", self.variant, [name for name in variants if name]))
        return variants[self.variant]

    def cell(self) -> SchemeCell:
        """The cell of its scheme on its backend."""
        return cell(self.scheme, self.backend, self.variant)

    def extras(self) -> list[str]:
        """The optional dependencies that its file is made with."""
        return sorted({self.backend, *self.cell().extras} & EXTRAS.keys())

    def is_float16(self) -> bool:
        """Whether its file computes in float16."""
        return "fp16" in (self.scheme, self.cell().precision)

    def file(self, name: str) -> str:
        """The artifact's file name: name_backend_scheme[_variant].suffix."""
        parts = [name, self.backend, self.scheme, *([self.variant] if self.variant else [])]
        return "_".join(parts) + self.kind().suffix

    def __str__(self) -> str:
        return f"{self.backend}-{self.scheme}" + (f":{self.variant}" if self.variant else "")


def require_extras(targets: Iterable[Target]) -> None:
    """Raises MissingExtraError, with the pip line, where a package that makes one of the files is not installed."""
    for target in targets:
        for extra in target.extras():
            require(extra, purpose=f"the artifact {target}")


def interface(target: Target, signature: Signature, options: Export) -> dict[str, Any]:
    """What the file of `target` takes and gives, where it says more than the `signature` of all files.

    inputs: name, dtype and shape of each, with the file's own batch. outputs: of each, the method that gives it (""
    where the file has no methods), name, dtype, shape, layout, range; of an image its colours.
    """
    variant = target.kind()
    pixels = [(signature.pixels, variant.pixels or "NHWC")] if signature.makes_images else []
    plain = [(spec, LAYOUTS.get(len(spec.shape), "")) for spec in signature.outputs]
    specs = dict.fromkeys(variant.methods or ("",), plain)
    if variant.pixels:
        specs = {"": pixels}
    elif "generate" in specs:
        specs["generate"] = pixels if options.generate else []
    return {
        "inputs": [
            {
                "name": spec.name,
                "dtype": variant.input_dtypes.get(spec.dtype, spec.dtype),
                "shape": _shape(spec, variant),
            }
            for spec in signature.inputs
        ],
        "outputs": [
            _output(method, spec, layout, variant) for method, outputs in specs.items() for spec, layout in outputs
        ],
    }


def _output(method: str, spec: TensorSpec, layout: str, variant: Variant) -> dict[str, Any]:
    facts = {"method": method, "name": spec.name, "dtype": spec.dtype, "shape": _shape(spec, variant), "layout": layout}
    channels = spec.shape[-1 if layout in ("NHWC", "CVPixelBuffer") else 1] if len(spec.shape) == 4 else None
    colors = {1: "gray", 3: "RGB"}.get(channels, "") if spec.role == "image" and isinstance(channels, int) else ""
    return {**facts, "low": spec.low, "high": spec.high, **({"colors": colors} if colors else {})}


def _shape(spec: TensorSpec, variant: Variant) -> list[int | str]:
    return [variant.batch if size == "batch_size" and variant.batch else size for size in spec.shape]


def checked_targets(names: Iterable[str], tables: Files | Recipe) -> tuple[Target, ...]:
    """Each named target once. Raises UsageError for one that cannot be made as the tables say, before any work."""
    targets = tuple(dict.fromkeys(map(Target.parse, names)))
    check_targets(targets, tables.export)
    if tables.export.tune_on is not None:
        from edgegen.profilers.files.profile import connect

        connect(tables.export.tune_on)  # by its name: nothing is reached yet
    budget = None if tables.quantize.budget is None else Budget.parse(tables.quantize.budget)
    if budget is not None and budget.fd_local is not None and not isinstance(tables, Recipe):
        raise UsageError("quantize.budget: fd_local needs images to compare with, which only a run of a recipe has")
    trains = tables.recover is not None or bool(tables.quantize.methods)
    check_quantization(targets, tables.quantize, budget=budget, trains=trains)
    return targets


def check_targets(targets: Sequence[Target], options: Export) -> None:
    """Raises UsageError for targets that do not fit the options, before any work.

    A target may lack the sizes of its file, or sizes a target; a device's system may be too old for a scheme.
    """
    if options.chips != DEFAULTS.chips and not any(target.variant == "qnn" for target in targets):
        raise UsageError(f"the chips {','.join(options.chips)} go with a target onnx-...:qnn; there is none")
    if options.rewrites:
        known = {name for target in targets for name in switches(registry.load("backend", target.backend))}
        for name in options.rewrites:
            if name not in known:
                raise UsageError(f"export.rewrites: {unknown_name('rewrite', name, sorted(known))}")
    for target in targets:
        backend: Backend = registry.load("backend", target.backend)
        try:
            backend.check_options(target.scheme, options)
        except ExportError as e:
            raise UsageError(f"{target}: {e}") from e
    sizes = options.heights_widths
    sized = [str(target) for target in targets if target.kind().lists_sizes]
    if sized and not sizes:
        raise UsageError(
            f"{sized[0]} needs the sizes that it shall take, such as export.heights_widths = [[64, 64], [64, 96]]"
        )
    if sizes and not sized:
        listed = ",".join(f"{height}x{width}" for height, width in sizes)
        raise UsageError(f"the sizes {listed} go with a target coreml:sizes; there is none")


def check_quantization(
    targets: Sequence[Target], quantization: Quantize, *, budget: Budget | None, trains: bool
) -> None:
    """Raises UsageError for options without effect; `trains`: recovery or another method changes weights."""
    for target in targets:
        scheme_cell = target.cell()
        if quantization.float_layers and scheme_cell.stage == "file" and target.scheme not in FLOAT_SCHEMES:
            raise UsageError(
                f"{target}: {scheme_cell.engine} compresses every large weight; float layers are for w8a8, w8a16, "
                "mixed and ONNX w8"
            )
        if target.scheme == "mixed":
            require_mixed(budget)
        if target.kind().any_size and target.scheme in GRIDS and (trains or target.scheme == "mixed"):
            raise UsageError(
                f"{target}: recovery, methods and mixed files know one size of image; leave out the variant"
            )
    scheme_cells = [target.cell() for target in targets]
    if quantization.float_layers and not any(scheme_cell.stage == "program" for scheme_cell in scheme_cells):
        raise UsageError(
            f"float layers are for w8a8, w8a16, mixed and ONNX w8; none of them is among {_listed(targets)}"
        )
    if quantization.ranges != DEFAULT_OPTIONS.ranges and not any(
        scheme_cell.calibrated for scheme_cell in scheme_cells
    ):
        raise UsageError(f"ranges are for w8a8, w8a16 and mixed files; none is among {_listed(targets)}")
    if budget is not None and budget.latency is not None:
        compressed = [target for target in targets if target.scheme not in FLOAT_SCHEMES]
        untimed = [target for target in compressed if not runs_here(target.backend, target.variant)]
        if untimed:
            raise UsageError(f"{untimed[0]}: a budget's latency is measured on this machine, where it does not run")
    if budget is not None and all(target.scheme in FLOAT_SCHEMES for target in targets):
        raise UsageError(f"a budget is for compressed files; none is among {_listed(targets)}")
    if trains and not any(target.scheme in GRIDS for target in targets):
        raise UsageError(f"recovery and methods are for {', '.join(GRIDS)}; none of them is among {_listed(targets)}")


def backends_of(scheme: str, targets: Sequence[Target]) -> tuple[str, ...]:
    """The backends of the targets of one scheme, each once."""
    return tuple(dict.fromkeys(target.backend for target in targets if target.scheme == scheme))


def runs_here(backend: str, variant: str) -> bool:
    """Whether a runtime, and not our evaluator or a simulator, executes such files of `backend` on this machine."""
    loaded: Backend = registry.load("backend", backend)
    return loaded.runs_here(variant)


def why_untimed(artifact: Artifact, status: str) -> str:
    """Why a file of this parity is not timed on this machine; "" where it is."""
    from edgegen.profilers.files.subject import untimed_reason  # imported here: it opens files

    if simulator := Target(artifact.backend, artifact.scheme, artifact.variant).kind().simulator:
        reason = f"the {simulator} gives no latency"
    elif not runs_here(artifact.backend, artifact.variant):
        reason = "no runtime for it here"
    elif status != "ok":
        reason = f"parity {status}"
    else:
        reason = untimed_reason(artifact.file)
    return f"not measured: {reason}" if reason else ""


def _listed(targets: Sequence[Target]) -> str:
    return ", ".join(map(str, targets))
