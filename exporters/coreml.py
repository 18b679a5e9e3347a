"""Core ML: an ML Program for iOS 17 by coremltools; run by Core ML on a Mac and by our evaluator elsewhere."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegen import mlpackage
from edgegen.errors import ExportError
from edgegen.exporters.base import Arrays, Precision, Session, one_by_one
from edgegen.exporters.mil import MilEvaluator
from edgegen.types import Signature, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

NAMESPACE = "com.edgegen."
# Fields of Core ML's own, which Xcode shows: the key in `metadata`, the field's name and what stands there otherwise.
FIELDS = (
    ("description", "shortDescription", "One-step image generator: noise in, image out."),
    ("author", "author", "edgegen"),
    ("license", "license", "not stated"),
    ("version", "versionString", version("edgegen")),
)


@dataclass(frozen=True)
class CoreMLSession:
    """A package run by Core ML; `model` is the vendor's object. No machine of ours has run this."""

    model: Any
    method: str

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Raises ExportError where Core ML refuses the inputs."""
        return one_by_one(inputs, self._run)

    def _run(self, inputs: Arrays) -> Arrays:
        kinds = {"f": np.float32, "i": np.int32, "u": np.int32}
        try:
            return dict(self.model.predict({name: a.astype(kinds[a.dtype.kind]) for name, a in inputs.items()}))
        except Exception as e:
            raise ExportError(f"Core ML refused the inputs {', '.join(inputs)}: {e}") from e


@dataclass(frozen=True)
class CoreML:
    """An `.mlpackage` folder of static batch 1, for iOS 17 and macOS 14, the first that decompress weights as they run.

    Inputs and outputs are float32 (classes int32) whatever the precision inside: the app feeds the very noise that the
    other backends get, and the one cast costs nothing beside a convolution. The same program gives the same bytes.
    """

    suffix: str = field(default=mlpackage.SUFFIX, init=False)
    batch: int | None = field(default=1, init=False)

    def lower(
        self,
        program: "ExportedProgram",
        path: Path,
        *,
        signature: Signature,
        precision: Precision,
        metadata: Mapping[str, str],
    ) -> None:
        """Write `path`: computes in `precision`; metadata under "com.edgegen.", Core ML's own fields where they fit.

        Raises ExportError where coremltools cannot convert the program or the program does not fit the signature.
        """
        vendor = mlpackage.coremltools("writing a Core ML package")
        precisions = {"fp16": vendor.precision.FLOAT16, "fp32": vendor.precision.FLOAT32}
        try:
            with mlpackage.silent():
                model = vendor.convert(
                    program.run_decompositions({}),  # coremltools refuses torch's training dialect
                    convert_to="mlprogram",
                    minimum_deployment_target=vendor.target.iOS17,
                    compute_precision=precisions[precision],
                    outputs=[vendor.TensorType(name=spec.name, dtype=np.float32) for spec in signature.outputs],
                    skip_model_load=True,
                )
                spec = model.get_spec()
        except Exception as e:
            raise ExportError(f"coremltools could not convert the program: {e}") from e
        _check_inputs(spec, signature)
        _describe(spec, signature, metadata)
        mlpackage.write(spec, Path(model.weights_dir), path)

    def open(self, path: Path) -> Session:
        """Raises ExportError for a package that cannot be read or evaluated here."""
        return _run_by_core_ml(path) if platform.system() == "Darwin" else MilEvaluator(path)


BACKEND = CoreML()


def _run_by_core_ml(path: Path) -> Session:
    vendor = mlpackage.coremltools("running a Core ML package")
    mlpackage.read(path)
    try:
        model = vendor.models.MLModel(str(path))
    except Exception as e:
        raise ExportError(f"Core ML cannot open {path.name}: {e}") from e
    return CoreMLSession(model, f"Core ML {platform.mac_ver()[0]}")


def _check_inputs(spec: Any, signature: Signature) -> None:
    found = {entry.name: list(entry.type.multiArrayType.shape) for entry in spec.description.input}
    wanted = {entry.name: [1 if dim == "batch_size" else dim for dim in entry.shape] for entry in signature.inputs}
    if found != wanted:
        raise ExportError(f"the captured program takes {found}, the signature says {wanted} (Core ML: batch 1)")


def _describe(spec: Any, signature: Signature, metadata: Mapping[str, str]) -> None:
    for key, attribute, otherwise in FIELDS:
        setattr(spec.description.metadata, attribute, metadata.get(key, otherwise))
    stamped = {**metadata, "signature": json.dumps(signature.to_dict(), sort_keys=True)}
    for key, text in stamped.items():
        spec.description.metadata.userDefined[NAMESPACE + key] = text
    entries = {entry.name: entry for entry in (*spec.description.input, *spec.description.output)}
    for tensor in (*signature.inputs, *signature.outputs):
        entries[tensor.name].shortDescription = _sentence(tensor)


def _sentence(tensor: TensorSpec) -> str:
    shape = " x ".join(str(1 if dim == "batch_size" else dim) for dim in tensor.shape)
    if tensor.role == "noise":
        return f"Noise: {shape} values drawn from the standard normal distribution."
    if tensor.role == "class":
        return f"The class to draw, an integer from {tensor.low} to {tensor.high}."
    return f"The image: {shape} (batch, channels, height, width), values from {tensor.low} to {tensor.high}."
