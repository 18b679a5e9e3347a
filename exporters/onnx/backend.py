"""ONNX: torch.onnx's dynamo exporter, without notes on the machine that built it; run by onnxruntime on the CPU."""

import contextlib
import io
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.exporters.base import DEFAULTS, Arrays, Precision, Session, Variant, one_by_one, pixels, refusal
from edgegen.exporters.growth import Growth
from edgegen.exporters.onnx import htp, slim
from edgegen.exporters.onnx.cells import CELLS, NPU_CELLS
from edgegen.exporters.onnx.htp_forms import NPU_FORMS
from edgegen.exporters.onnx.metadata import NAMESPACE, clean, stamp
from edgegen.exporters.onnx.prelu import prelu
from edgegen.exporters.onnx.unsigned import unsigned
from edgegen.exporters.onnx.winograd import winograd
from edgegen.recipe import Export
from edgegen.support.extras import require
from edgegen.support.scratch import temporary_folder
from edgegen.support.vendor_logs import TORCH_ONNX, quiet
from edgegen.types import SchemeCell, Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram

LARGEST = 2_000_000_000  # bytes of one protobuf, with room for the program; above it weights lie in a second file
OPSET_OF_VOLUMES = 20  # GridSample-20 is the first for 5D inputs (ONNX's Operators.md)
OPSET_OF_16_BITS = 21  # QuantizeLinear-21 is the first with 16-bit numbers
CPU_FORMS = ("winograd", "prelu")  # for onnxruntime's kernels on CPUs; an NPU's compiler has its own
FORMS = (*CPU_FORMS, *NPU_FORMS)
PLAIN = ("batch1", "qnn", "any_size")  # variants for other compilers than onnxruntime's, or of unknown sizes
TINY = 1e-8  # onnxscript compares constants with this absolute tolerance
OPTIMIZER = "torch.onnx.optimize"  # onnxscript's passes, by the argument of torch.onnx.export
FATAL = 4  # onnxruntime's log severity; at a lower one it also prints the messages of its exceptions

SNIPPET = """import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{file}")
out = session.run(["{output}"], {inputs})[0]"""


@dataclass(frozen=True)
class OnnxSession:
    """An onnxruntime session on the CPU; `runtime` is the vendor's object, `batch` its fixed batch if it has one."""

    runtime: Any
    method: str
    batch: int | None

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return self._run(dict(inputs)) if self.batch is None else one_by_one(inputs, self._run)

    def _run(self, inputs: Arrays) -> Arrays:
        names = [output.name for output in self.runtime.get_outputs()]
        try:
            values = self.runtime.run(names, inputs)
        except Exception as e:
            raise ExportError(f"onnxruntime refused {_shapes(inputs)}: {e}") from e
        return dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class OnnxBackend:
    """`.onnx` files: weights inside up to 2 GB, the same bytes from the same program; `.ort` for reduced builds."""

    variants: Mapping[str, Variant] = field(
        default_factory=lambda: {
            "": Variant("any batch", ".onnx", None),
            "batch1": Variant("fixed batch 1, for the NPUs of phones (NNAPI, QNN, Core ML)", ".onnx", 1),
            "any_size": Variant("any batch, height and width that the network takes", ".onnx", None, any_size=True),
            "generate": Variant("noise -> uint8 image (batch, height, width, channels)", ".onnx", None, pixels="NHWC"),
            "qnn": Variant(
                "Snapdragon's NPU: the file, and beside it what its compiler made for each chip",
                ".onnx",
                1,
                cells=NPU_CELLS,
                simulator="HTP simulator",
            ),
            "ort": Variant("ORT format, optimised offline, with its required operators beside it", ".ort", 1),
        },
        init=False,
    )
    cells: Mapping[str, SchemeCell] = field(default_factory=lambda: dict(CELLS), init=False)
    snippet: str = field(default=SNIPPET, init=False)
    rewrites: tuple[str, ...] = field(
        default=("modulated_conv", "resampling", "pointwise", "conv_bias", "einsum", "batch_chunk"), init=False
    )

    def passes(self) -> tuple[str, ...]:
        return (OPTIMIZER, *slim.names(), "unsigned", *FORMS)

    def speed_passes(self, variant: str) -> dict[str, bool]:
        return {} if variant in ("qnn", "ort") else dict.fromkeys(CPU_FORMS, variant not in PLAIN)

    def runs_here(self, variant: str = "") -> bool:
        return not self.variants[variant].simulator

    def check_options(self, scheme: str, options: Export) -> None:
        """Every option goes with every scheme."""

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
    ) -> dict[str, Any]:
        """Write `path` with `metadata` and the signature under "edgegen."; checked by onnx's full checker.

        Weights of more than 2 GB lie beside it in `<name>.onnx.data`. The variant "ort" writes
        `<name>.required_operators.config` beside it, for `build.py --include_ops_by_config` of onnxruntime.
        """
        if precision != "fp32":
            raise ExportError(f"the onnx backend writes fp32, not {precision}")
        require("onnx", purpose="writing an ONNX file")
        if variant == "generate":
            signature, program = pixels(program, signature, self.variants[variant].batch)
        growth = Growth(options.added_weight_bytes)
        fields = {**metadata, "signature": json.dumps(signature.to_dict(), sort_keys=True)}
        try:
            optimize = OPTIMIZER not in left_out and not _adds_tiny(program)
            opset = max(options.opset, OPSET_OF_16_BITS) if _rounds_to_16_bits(program) else options.opset
            exported = _convert(program, signature, opset, optimize=optimize)
            if variant == "ort":
                _write_ort(exported, fields, path, left_out)
            else:
                default = (*(() if variant in PLAIN else CPU_FORMS), *(NPU_FORMS if variant == "qnn" else ()))
                forms = [name for name in options.chosen(default, FORMS) if name not in left_out]
                _write(exported, fields, path, left_out, forms, growth)
        except ExportError:
            raise
        except Exception as e:
            raise ExportError(refusal("torch.onnx", e, program)) from e
        return growth.facts()

    def complete(self, path: Path, *, variant: str, options: Export = DEFAULTS) -> dict[str, Any]:
        """Compiles the variant "qnn" for the chips of `options`, and notes in the file what their NPU takes."""
        if variant != "qnn":
            return {}
        assignment = htp.compile_contexts(path, options.chips)
        _note(path, {htp.FIELD: json.dumps(asdict(assignment), sort_keys=True)})
        return {"npu": {**asdict(assignment), "compiler": htp.compiler()}}

    def open(self, path: Path) -> Session:
        require("onnx", purpose="running an ONNX file")
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = FATAL
            runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as e:
            raise ExportError(f"onnxruntime cannot open {path}: {e}") from e
        assignment = htp.assignment_of(runtime.get_modelmeta().custom_metadata_map, NAMESPACE)
        if assignment is not None:
            return htp.open_contexts(path, assignment)
        return OnnxSession(runtime, f"onnxruntime {onnxruntime.__version__} CPU", _batch_of(runtime))


BACKEND = OnnxBackend()


def _batch_of(runtime: Any) -> int | None:
    """The fixed first axis of its first input with axes, None where that is open."""
    size = next((entry.shape[0] for entry in runtime.get_inputs() if entry.shape), None)
    return size if isinstance(size, int) else None


def _convert(program: "ExportedProgram", signature: Signature, opset: int, *, optimize: bool) -> Any:
    import torch

    from edgegen.exporters.onnx.module_paths import name_nodes

    _require_volumes(program, opset)
    with quiet(TORCH_ONNX):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            external_data=False,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            verbose=False,
            optimize=optimize,
        )
    assert exported is not None
    written = exported.model.opset_imports[""]
    if written != opset:  # torch.onnx keeps a newer one where an operator has no older form
        raise _older_opset("an operator of this network", opset, written)
    name_nodes(exported)
    return exported


def _adds_tiny(program: "ExportedProgram") -> bool:
    """Whether it adds a number that torch.onnx's optimiser takes for 0: what keeps a division by 0 away, as 1e-15 does.

    Only inputs for which the other term is 0 show that it is gone, so a trial run need not.
    """
    return any(
        node.op == "call_function"
        and str(node.target).startswith(("aten.add", "aten.sub"))
        and any(isinstance(term, float) and 0 < abs(term) <= TINY for term in node.args)
        for node in program.graph.nodes
    )


def _rounds_to_16_bits(program: "ExportedProgram") -> bool:
    import torch

    return any(torch.int16 in node.args for node in program.graph.nodes if "quantize_per_tensor" in str(node.target))


def _note(path: Path, fields: Mapping[str, str]) -> None:
    """Add metadata to a file that is written. Weights in a second file stay there."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for key in sorted(fields):
        model.metadata_props.add(key=NAMESPACE + key, value=fields[key])
    path.write_bytes(model.SerializeToString(deterministic=True))


def _require_volumes(program: "ExportedProgram", opset: int) -> None:
    """torch.onnx writes a GridSample of volumes into files of any opset; before opset 20 it is of images alone."""
    for node in program.graph.nodes:
        if "grid_sampler" in str(node.target) and node.args[0].meta["val"].ndim == 5 and opset < OPSET_OF_VOLUMES:
            raise _older_opset("grid_sample of volumes (5D)", opset, OPSET_OF_VOLUMES)


def _older_opset(subject: str, opset: int, needed: int) -> ExportError:
    return ExportError(
        f"{subject} needs ONNX opset {needed}, and the file is to have {opset}: set opset = {needed} in the table "
        "[export] (--recipe FILE), where the device's runtime knows it"
    )


def _write(
    exported: Any,
    fields: Mapping[str, str],
    path: Path,
    left_out: Collection[str],
    forms: Collection[str] = (),
    growth: Growth | None = None,
) -> None:
    import onnx

    if sum(value.const_value.nbytes for value in exported.model.graph.initializers.values()) < LARGEST:
        model = slim.slim(exported.model_proto, left_out=left_out)
        if "unsigned" not in left_out:
            unsigned(model)
        if "winograd" in forms and growth is not None:
            winograd(model, growth)
        if "prelu" in forms:  # behind the convolutions that stayed
            prelu(model)
        for name, form in NPU_FORMS.items():
            if name in forms:
                form(model)
        clean(model)
        stamp(model, fields)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    exported.save(path, external_data=True)  # weight by weight, straight from torch's memory
    model = onnx.load(path, load_external_data=False)
    clean(model)
    stamp(model, fields)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path, full_check=True)


def _write_ort(exported: Any, fields: Mapping[str, str], path: Path, left_out: Collection[str]) -> None:
    """By onnxruntime's own converter: graph optimisation for a CPU of any make, done once, here."""
    from onnxruntime.tools import convert_onnx_models_to_ort as converter

    with temporary_folder() as temporary, contextlib.redirect_stdout(io.StringIO()):
        source = Path(temporary) / f"{path.stem}.onnx"
        _write(exported, fields, source, left_out)
        converter.convert_onnx_models_to_ort(
            source,
            Path(temporary) / "out",
            optimization_styles=[converter.OptimizationStyle.Fixed],
            target_platform="arm",
        )
        files = {file.suffix: file for file in (Path(temporary) / "out").iterdir()}
        shutil.move(files[".ort"], path)
        shutil.move(files[".config"], path.with_suffix(".required_operators.config"))


def _shapes(inputs: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in inputs.items())
