"""A `.pte` or `.bpte` opened by ExecuTorch's Python runtime: a session of named arrays for each of its methods."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import ExportError, NoRuntimeError
from edgegen.exporters.base import Arrays, one_by_one
from edgegen.exporters.executorch.runtime_import import without_exporter
from edgegen.support.vendor_logs import EXECUTORCH, quiet
from edgegen.types import PIXELS

ABSENT_DELEGATE = "is not registered"  # ExecuTorch's words for a delegate that the runtime was built without
METADATA = "get_metadata"  # a constant method, readable from Swift, Kotlin and C++: inputs have no names at run time


@dataclass(frozen=True)
class ExecuTorchSession:
    """One method of a loaded program; `inputs` and `outputs` are the names in the order of its arguments.

    `further` holds the session of the method `generate`, where the program has it.
    """

    execute: Callable[[list[Any]], Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    method: str
    described: Mapping[str, Any]
    further: Mapping[str, "ExecuTorchSession"] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ExportError(f"missing inputs {missing}; the program takes {list(self.inputs)}")
        return one_by_one({name: inputs[name] for name in self.inputs}, self._run)

    def _run(self, sample: Arrays) -> Arrays:
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(sample[name])) for name in self.inputs]
        try:
            with redirect_stderr(io.StringIO()) as log:
                values = self.execute(tensors)
        except Exception as e:
            shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in sample.items())
            raise ExportError(f"ExecuTorch refused {shapes}: {_cause(e, log)}") from e
        for name, value in zip(self.outputs, values, strict=True):
            if not value.is_contiguous():  # an app reads the memory, and no strides
                raise ExportError(
                    f"'{name}' {list(value.shape)} leaves the file in another layout than the signature's: its strides "
                    f"are {list(value.stride())}"
                )
        # The runtime reuses the memory of its outputs in the next run.
        return {name: value.numpy().copy() for name, value in zip(self.outputs, values, strict=True)}


def open_program(path: Path, *, bundled: bool) -> ExecuTorchSession:
    """The session of `forward`, with that of `generate` where the program has it. Raises ExportError."""
    load = _load_bundled if bundled else _load
    with redirect_stderr(io.StringIO()) as log:  # five lines about CPU files at the first load
        try:
            run, methods = load(path.read_bytes())
            described = json.loads(run(METADATA, [])[0])
            forward = _method(run, "forward", described, described["outputs"])
        except Exception as e:
            cause = _cause(e, log)
            # A delegate of phones, such as Vulkan or Core ML, that the runtime in Python is built without.
            kind = NoRuntimeError if ABSENT_DELEGATE in cause else ExportError
            raise kind(f"ExecuTorch cannot open {path}: {cause}") from e
    further = {name: _method(run, name, described, [PIXELS]) for name in ("generate",) if name in methods}
    return replace(forward, further=further)


Run = Callable[[str, list[Any]], Any]


def _load(content: bytes) -> tuple[Run, set[str]]:
    """(method, tensors) -> values of a `.pte`; `forward` is planned now, another method when it first runs."""
    with quiet(EXECUTORCH):
        with without_exporter():
            from executorch.runtime import Runtime

        program = Runtime.get().load_program(content)
        methods = {"forward": program.load_method("forward")}

    def run(name: str, tensors: list[Any]) -> Any:
        if name not in methods:
            methods[name] = program.load_method(name)
        return methods[name].execute(tensors)

    return run, set(program.method_names)


def _load_bundled(content: bytes) -> tuple[Run, set[str]]:
    """The same of the program in a `.bpte`."""
    with quiet(EXECUTORCH):
        with without_exporter():
            from executorch.extension.pybindings import portable_lib

        bundle = portable_lib._load_bundled_program_from_buffer(content)
        module = portable_lib._load_for_executorch_from_bundled_program(bundle)

    def run(name: str, tensors: list[Any], _alive: object = (content, bundle)) -> Any:  # the module points into them
        return module.run_method(name, tensors)

    return run, set(module.method_names())


def _method(run: Run, name: str, described: Mapping[str, Any], outputs: Sequence[str]) -> ExecuTorchSession:
    return ExecuTorchSession(
        lambda tensors: run(name, tensors),
        tuple(described["inputs"]),
        tuple(outputs),
        f"executorch {version('executorch')} XNNPACK CPU",
        described,
    )


def _cause(error: Exception, log: io.StringIO) -> str:
    """ExecuTorch's exceptions carry a number; the reason is the first line of what its C++ logs to sys.stderr."""
    return "; ".join([str(error) or repr(error), *log.getvalue().splitlines()[:1]])
