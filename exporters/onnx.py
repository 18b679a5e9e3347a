"""ONNX: torch.onnx's dynamo exporter, cleaned of the builder's traces; run by onnxruntime on the CPU."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.exporters.base import Arrays, Precision
from edgegen.extras import require
from edgegen.quiet import TORCH_ONNX, quiet
from edgegen.types import Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPSET = 18  # the lowest that onnxruntime loads of what torch 2.13 writes, the one that phones' providers know best
NAMESPACE = "edgegen."
BATCH_AXIS = "batch_size"
FATAL = 4  # onnxruntime's severity: it prints what its exceptions say, too


@dataclass(frozen=True)
class OnnxSession:
    """An onnxruntime session on the CPU; `runtime` is the vendor's object."""

    runtime: Any
    method: str

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        names = [output.name for output in self.runtime.get_outputs()]
        try:
            values = self.runtime.run(names, dict(inputs))
        except Exception as e:
            raise ExportError(f"onnxruntime refused {_shapes(inputs)}: {e}") from e
        return dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class OnnxBackend:
    """One `.onnx` file: weights inside, opset 18, dynamic axis batch_size, the same bytes from the same program."""

    suffix: str = field(default=".onnx", init=False)
    batch: int | None = field(default=None, init=False)

    def lower(
        self,
        program: "ExportedProgram",
        path: Path,
        *,
        signature: Signature,
        precision: Precision,
        metadata: Mapping[str, str],
    ) -> None:
        """Write `path` with `metadata` and the signature under "edgegen."; checked by onnx's full checker."""
        if precision != "fp32":
            raise ExportError(f"the onnx backend writes fp32, not {precision}")
        require("onnx", purpose="writing an ONNX file")
        try:
            import onnx
            import torch

            with quiet(TORCH_ONNX):
                exported = torch.onnx.export(
                    program,
                    dynamo=True,
                    opset_version=OPSET,
                    external_data=False,
                    input_names=[spec.name for spec in signature.inputs],
                    output_names=[spec.name for spec in signature.outputs],
                    verbose=False,
                )
            assert exported is not None
            model = exported.model_proto
            _clean(model)
            _stamp(model, {**metadata, "signature": json.dumps(signature.to_dict(), sort_keys=True)})
            onnx.checker.check_model(model, full_check=True)
        except Exception as e:
            raise ExportError(f"torch.onnx could not lower the program: {e}") from e
        path.write_bytes(model.SerializeToString(deterministic=True))

    def open(self, path: Path) -> OnnxSession:
        require("onnx", purpose="running an ONNX file")
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = FATAL
            runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as e:
            raise ExportError(f"onnxruntime cannot open {path}: {e}") from e
        return OnnxSession(runtime, f"onnxruntime {onnxruntime.__version__} CPU")


BACKEND = OnnxBackend()


def _clean(model: Any) -> None:
    """Drop what torch notes about its own run (source paths among it), and name the batch axis."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    for part in [model, graph, *graph.node, *graph.initializer, *values]:
        del part.metadata_props[:]
        part.ClearField("doc_string")
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if symbol:
        for dim in _symbolic(values):
            dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", BATCH_AXIS, dim.dim_param)


def _symbolic(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield from (dim for dim in value.type.tensor_type.shape.dim if dim.dim_param)


def _stamp(model: Any, metadata: Mapping[str, str]) -> None:
    model.producer_name = "edgegen"
    model.producer_version = version("edgegen")
    for key in sorted(metadata):
        model.metadata_props.add(key=NAMESPACE + key, value=metadata[key])


def _shapes(inputs: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in inputs.items())
