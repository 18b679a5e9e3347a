"""ExecuTorch: one static batch-1 `.pte` for XNNPACK (ARM and x86 CPUs), run by ExecuTorch's own Python runtime."""

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.exporters.base import Arrays, Precision, one_by_one
from edgegen.extras import require
from edgegen.quiet import EXECUTORCH, quiet
from edgegen.types import Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram

METADATA = "get_metadata"  # a constant method, readable from Swift, Kotlin and C++: inputs have no names at run time


@dataclass(frozen=True)
class ExecuTorchSession:
    """The method `forward` of a loaded program; `inputs` and `outputs` are the names in the order of its arguments."""

    program: Any  # holds the memory of `forward`
    forward: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    method: str

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ExportError(f"missing inputs {missing}; the program takes {list(self.inputs)}")
        return one_by_one({name: inputs[name] for name in self.inputs}, self._run)

    def _run(self, sample: Arrays) -> Arrays:
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(sample[name])) for name in self.inputs]
        try:
            with redirect_stderr(io.StringIO()) as said:
                values = self.forward.execute(tensors)
        except Exception as e:
            given = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in sample.items())
            raise ExportError(f"ExecuTorch refused {given}: {_cause(e, said)}") from e
        # The runtime reuses the memory of its outputs in the next run.
        return {name: value.numpy().copy() for name, value in zip(self.outputs, values, strict=True)}


@dataclass(frozen=True)
class ExecuTorchBackend:
    """One `.pte` file: method `forward` with static batch 1, constant method `get_metadata` (JSON)."""

    suffix: str = field(default=".pte", init=False)
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
        """Write `path`; what XNNPACK does not take runs on ExecuTorch's portable kernels."""
        if precision != "fp32":
            raise ExportError(f"the executorch backend writes fp32, not {precision}")
        require("executorch", purpose="writing an ExecuTorch file")
        with quiet(EXECUTORCH):
            try:
                from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
                from executorch.exir import to_edge_transform_and_lower

                edge = to_edge_transform_and_lower(
                    program,
                    partitioner=[XnnpackPartitioner()],
                    constant_methods={METADATA: _describe(signature, metadata)},
                )
                content = edge.to_executorch().buffer
            except Exception as e:
                raise ExportError(f"ExecuTorch could not lower the program: {e}") from e
        path.write_bytes(content)

    def open(self, path: Path) -> ExecuTorchSession:
        require("executorch", purpose="running an ExecuTorch file")
        with quiet(EXECUTORCH):
            from executorch.runtime import Runtime

            runtime = Runtime.get()
        with redirect_stderr(io.StringIO()) as said:  # five lines about CPU files at the first load
            try:
                program = runtime.load_program(path.read_bytes())
                described = json.loads(program.load_method(METADATA).execute([])[0])
                inputs, outputs = tuple(described["inputs"]), tuple(described["outputs"])
                forward = program.load_method("forward")
            except Exception as e:
                raise ExportError(f"ExecuTorch cannot open {path}: {_cause(e, said)}") from e
        return ExecuTorchSession(program, forward, inputs, outputs, f"executorch {version('executorch')} XNNPACK CPU")


BACKEND = ExecuTorchBackend()


def _describe(signature: Signature, metadata: Mapping[str, str]) -> str:
    names = {"inputs": [spec.name for spec in signature.inputs], "outputs": [spec.name for spec in signature.outputs]}
    about = {"producer": f"edgegen {version('edgegen')}", "signature": signature.to_dict()}
    return json.dumps({**metadata, **names, **about}, sort_keys=True)


def _cause(error: Exception, said: io.StringIO) -> str:
    """ExecuTorch's exceptions carry a number; the reason is the first line of what its C++ logs to sys.stderr."""
    return "; ".join([str(error) or repr(error), *said.getvalue().splitlines()[:1]])
