"""Core ML: an ML Program for iOS 17, 18 or 26 by coremltools; run by Core ML on a Mac, elsewhere by an evaluator."""

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.exporters.base import DEFAULTS, Arrays, Precision, Session, Variant, one_by_one
from edgegen.exporters.coreml import metadata as coreml_metadata
from edgegen.exporters.coreml.cells import CELLS, SCHEME_FEATURES
from edgegen.formats import mlpackage
from edgegen.recipe import Export
from edgegen.types import PIXELS, SchemeCell, Signature, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

GENERATE = "generate"
SIZES = "sizes"
INPUT_DTYPES = {"float16": "float32", "int64": "int32", "uint8": "int32"}  # Core ML has no others for an app's arrays
# Feature -> the first deployment target that has it; others are in iOS 17. After coremltools 9.0's op sets and checks.
FEATURES = {
    "sizes for more than one input": "iOS18",
    "weights of 4 bits in blocks": "iOS18",
    "weights of 8 bits in blocks": "iOS18",
    "several functions in one package": "iOS18",
    "state": "iOS18",
    "inputs and outputs of 8 bits": "iOS26",
}
# MIL computes the sines of a time or size embedding from arguments up to 1000, where fp16 has steps of 0.5.
TRIGONOMETRY = ("sin", "cos")
PASS_THROUGH = ("mul", "add", "cast", "reshape", "expand_dims", "squeeze", "slice_by_index", "concat", "transpose")

SNIPPET = """import coremltools, numpy as np  # on a Mac
model = coremltools.models.MLModel("{file}")
out = model.predict({inputs})["{output}"]"""


@dataclass(frozen=True)
class CoreMLSession:
    """A package run by Core ML; `model` is the vendor's object. Not tested: that needs a Mac."""

    model: Any
    method: str

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Raises ExportError where Core ML refuses the inputs."""
        return one_by_one(inputs, self._run)

    def _run(self, inputs: Arrays) -> Arrays:
        kinds = {"f": np.float32, "i": np.int32, "u": np.int32}
        try:
            outputs = self.model.predict({name: a.astype(kinds[a.dtype.kind]) for name, a in inputs.items()})
        except Exception as e:
            raise ExportError(f"Core ML refused the inputs {', '.join(inputs)}: {e}") from e
        return {name: _array(value) for name, value in outputs.items()}


def _array(value: Any) -> NDArray[Any]:
    """An output as the other runtimes give it: an image (Pillow's, from Core ML) is (1, height, width, channels)."""
    if isinstance(value, np.ndarray):
        return value
    pixels = np.asarray(value.convert("L" if value.mode == "L" else "RGB"))
    return pixels.reshape(1, value.height, value.width, -1)


@dataclass(frozen=True)
class CoreMLBackend:
    """An `.mlpackage` folder of static batch 1, for iOS 17 and macOS 14 or newer, which decompress weights as they run.

    Inputs and outputs are float32 (whole numbers int32) whatever the precision inside: the app feeds the very noise
    that the other backends get, and the one cast costs nothing beside a convolution. The same program gives the same
    bytes. `generate` gives an image, which Core ML hands to the app as a CVPixelBuffer.
    """

    variants: Mapping[str, Variant] = field(
        default_factory=lambda: {
            "": Variant("one sample, float32 image", mlpackage.SUFFIX, 1, input_dtypes=INPUT_DTYPES),
            GENERATE: Variant(
                "one sample, noise to an image (CVPixelBuffer)",
                mlpackage.SUFFIX,
                1,
                pixels="CVPixelBuffer",
                input_dtypes=INPUT_DTYPES,
            ),
            SIZES: Variant(
                "one sample, the sizes in heights_widths",
                mlpackage.SUFFIX,
                1,
                any_size=True,
                lists_sizes=True,
                input_dtypes=INPUT_DTYPES,
            ),
        },
        init=False,
    )
    cells: Mapping[str, SchemeCell] = field(default_factory=lambda: dict(CELLS), init=False)
    snippet: str = field(default=SNIPPET, init=False)
    rewrites: tuple[str, ...] = field(
        default=("modulated_conv", "resampling", "conv_bias", "quantized_views"), init=False
    )

    def passes(self) -> tuple[str, ...]:
        return ()

    def runs_here(self, variant: str = "") -> bool:
        return platform.system() == "Darwin"

    def check_options(self, scheme: str, options: Export) -> None:
        """Raises ExportError where the scheme needs a newer system than `options.coreml_target`."""
        if scheme in SCHEME_FEATURES:
            require(SCHEME_FEATURES[scheme], options.coreml_target)

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
    ) -> None:
        """Write `path`: computes in `precision`; metadata under "com.edgegen.", Core ML's own fields where they fit.

        The variant "sizes" takes those of `options.heights_widths` beside the signature's own ("enumerated shapes"),
        and a program whose height and width are dynamic. Raises ExportError where coremltools cannot convert the
        program, the program does not fit the signature, or the deployment target is older than what is asked for.
        """
        vendor = mlpackage.coremltools("writing a Core ML package")
        if variant == GENERATE and not signature.makes_images:
            output = signature.outputs[0]
            raise ExportError(
                f"no image of {output.name}: it is {output.role} {list(output.shape)}; "
                f"'{GENERATE}' needs an image of 1 or 3 channels"
            )
        sizes = options.heights_widths if self.variants[variant].lists_sizes else ()
        inputs = _inputs(vendor, program, signature, sizes, options.coreml_target)
        outputs = _outputs(vendor, signature, variant)
        try:
            # coremltools compares int32's limits with fp16's in fp16, where they are infinite.
            with mlpackage.silent(), np.errstate(over="ignore"):
                readable = _readable(program, signature, variant, half=precision == "fp16")
                model = vendor.convert(
                    readable,
                    inputs=inputs,
                    outputs=outputs,
                    convert_to="mlprogram",
                    minimum_deployment_target=vendor.target[options.coreml_target],
                    compute_precision=_precision(vendor, precision, readable),
                    skip_model_load=True,
                )
                spec = model.get_spec()
        except ExportError:
            raise
        except Exception as e:
            raise ExportError(f"coremltools could not convert the program: {coreml_metadata.reason(e)}") from e
        _check_names(spec, [entry.name for entry in inputs], [entry.name for entry in outputs])
        coreml_metadata.describe(spec, signature, metadata, sizes=sizes, is_image=variant == GENERATE)
        mlpackage.write(spec, Path(model.weights_dir), path)

    def complete(self, path: Path, *, variant: str, options: Export = DEFAULTS) -> dict[str, Any]:
        """The file is all there is."""
        return {}

    def open(self, path: Path) -> Session:
        """Raises ExportError for a package that cannot be read or evaluated here."""
        if self.runs_here():
            return _run_by_core_ml(path)
        from edgegen.exporters.coreml.evaluator.program import MilEvaluator  # here, because it imports torch

        return MilEvaluator(path)


BACKEND = CoreMLBackend()


def require(feature: str, target: str) -> None:
    """Raises ExportError where `feature`, a key of FEATURES, needs a newer deployment target than `target`."""
    first = FEATURES[feature]
    if int(target.removeprefix("iOS")) < int(first.removeprefix("iOS")):
        raise ExportError(
            f"Core ML has {feature} from {first} on; the deployment target is {target}: "
            f'set coreml_target = "{first}" or do without'
        )


def _run_by_core_ml(path: Path) -> Session:
    vendor = mlpackage.coremltools("running a Core ML package")
    mlpackage.read(path)
    try:
        model = vendor.models.MLModel(str(path))
    except Exception as e:
        raise ExportError(f"Core ML cannot open {path.name}: {e}") from e
    return CoreMLSession(model, f"Core ML {platform.mac_ver()[0]}")


def _readable(program: "ExportedProgram", signature: Signature, variant: str, *, half: bool) -> "ExportedProgram":
    from edgegen.exporters.coreml.fixes import fixed, to_pixels  # here: without coremltools torch need not be loaded

    changed = fixed(program, half=half)
    if variant == GENERATE:
        to_pixels(changed, signature.outputs[0])
    return changed


def _static(spec: TensorSpec) -> list[int]:
    return [1 if size == "batch_size" else size for size in spec.shape]


def _shapes(program: "ExportedProgram") -> list[list[int | None]]:
    """The shapes of the program's inputs; a size that it leaves open is None."""
    if not hasattr(program, "graph_signature"):
        raise ExportError(f"coremltools could not convert the program: it is a {type(program).__name__}")
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    names = program.graph_signature.user_inputs
    return [[size if isinstance(size, int) else None for size in values[str(name)].shape] for name in names]


def _fits(have: list[int | None], want: list[int]) -> bool:
    return len(have) == len(want) and all(a in (None, b) for a, b in zip(have, want, strict=True))


def _inputs(
    vendor: Any, program: "ExportedProgram", signature: Signature, sizes: tuple[tuple[int, int], ...], target: str
) -> list[Any]:
    """The vendor's descriptions of the inputs, in the program's order and under the signature's names.

    Raises ExportError where program, signature and options do not fit each other.
    """
    captured = _shapes(program)
    shapes = {spec.name: _static(spec) for spec in signature.inputs}
    if len(captured) != len(shapes) or not all(map(_fits, captured, shapes.values())):
        raise ExportError(f"the captured program takes {captured}, the signature says {shapes} (Core ML: batch 1)")
    try:
        of_all_sizes = [signature, *(signature.resized(*size) for size in sizes)]
    except ValueError as e:
        raise ExportError(f"sizes {_listed(sizes)}: {e}") from e
    if sizes and sum(spec.is_spatial for spec in signature.inputs) > 1:
        require("sizes for more than one input", target)
    described = []
    for position, (spec, have) in enumerate(zip(signature.inputs, captured, strict=True)):
        choice = [list(s) for s in dict.fromkeys(tuple(_static(resized.inputs[position])) for resized in of_all_sizes)]
        if len(choice) > 1 and None not in have:
            raise ExportError(
                f"sizes {_listed(sizes)}: the program was captured for {spec.name} {have} alone, not for any size"
            )
        shape = choice[0] if len(choice) == 1 else vendor.EnumeratedShapes(shapes=choice, default=choice[0])
        dtype = np.dtype(INPUT_DTYPES.get(spec.dtype, spec.dtype)).type
        described.append(vendor.TensorType(name=spec.name, shape=shape, dtype=dtype))
    return described


def _listed(sizes: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in sizes)


def _outputs(vendor: Any, signature: Signature, variant: str) -> list[Any]:
    if variant == GENERATE:
        layout = vendor.colorlayout.GRAYSCALE if signature.image_shape[0] == 1 else vendor.colorlayout.RGB
        return [vendor.ImageType(name=PIXELS, color_layout=layout)]
    return [vendor.TensorType(name=spec.name, dtype=np.float32) for spec in signature.outputs]


def _precision(vendor: Any, precision: Precision, program: "ExportedProgram") -> Any:
    """fp16 but for the arguments of sines (see TRIGONOMETRY), and for what is noted to stay float32."""
    if precision == "fp32":
        return vendor.precision.FLOAT32
    numbers = _numbers_of_float32(program)
    return vendor.transform.FP16ComputePrecision(
        op_selector=lambda op: not _feeds_sine(op) and not (numbers and _is_among(op, numbers))
    )


def _numbers_of_float32(program: "ExportedProgram") -> set[int]:
    """Numbers the nodes of a program of which some stay float32: MIL's ops keep the number of the node they are of."""
    from edgegen.program.float16_range import stays_float32

    nodes = list(program.graph.nodes)
    kept = {number for number, node in enumerate(nodes) if stays_float32(node)}
    for number, node in enumerate(nodes if kept else []):
        node.meta["debug_handle"] = number
    return kept


def _is_among(op: Any, numbers: set[int]) -> bool:
    from coremltools.converters.mil.mil.scope import ScopeSource

    return bool(numbers.intersection(op.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE) or ()))


def _feeds_sine(op: Any) -> bool:
    if op.op_type in TRIGONOMETRY:
        return True
    return op.op_type in PASS_THROUGH and any(_feeds_sine(child) for var in op.outputs for child in var.child_ops)


def _check_names(spec: Any, inputs: list[str], outputs: list[str]) -> None:
    """coremltools may rename: the package must have the names that were asked for."""
    named = [entry.name for entry in spec.description.input], [entry.name for entry in spec.description.output]
    if named != (inputs, outputs):
        raise ExportError(
            f"coremltools named the inputs {named[0]} and the outputs {named[1]}; asked for: {inputs} and {outputs}"
        )
