"""Runs and times a file by its runtime's Python package, on commands read from stdin; needs no edgegen.

    python python_runner.py NONCE MODEL.onnx [NOTE]            where there is no runner in C++; NOTE says why
    python python_runner.py NONCE MODEL.pte [NOTE]
    python python_runner.py NONCE MODEL.mlpackage [UNITS]      ALL, CPU_ONLY, CPU_AND_GPU, CPU_AND_NE; needs a Mac

A command's fields are separated by tabs; INPUT is SHAPE:FILE ("1x3x32x32:noise.bin", ":time.bin" of a scalar), raw
numbers in the file's order.

    open   THREADS INPUT...               load, and the first inference
    block  LEAST_RUNS LEAST_MS MOST_MS    inferences back to back, until both of the first are reached, or the third is
    run    OUTPUT [INPUT...]              one inference (on other inputs); OUTPUT gets its first output's raw numbers
    trace  RUNS FILE                      inferences with the runtime's own profiler on; FILE gets what it wrote
    probe                                 a fixed piece of arithmetic: has the processor slowed down?

The first line of output says "ready" and the runtime, once the imports are done; each command is answered by one line
of JSON with the nonce and its number in turn. An error ends the process with a traceback on stderr. runner.h speaks the
same protocol.
"""

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

Facts = dict[str, Any]
PROBES, PROBE_STEPS = 8, 100_000


class Model(Protocol):
    """What is measured: `open` answers how long loading and the first inference took."""

    def open(self, words: Sequence[str]) -> Facts: ...

    def infer(self) -> object: ...

    @property
    def runtime(self) -> str: ...


def serve(nonce: str, model: Model, *, peak_rss_bytes: Callable[[], int | None]) -> None:
    """Carries out the commands on stdin until it ends; those that are not in `here` are methods of the model."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # what libraries print goes to stderr, C libraries' too
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _answer(answers, nonce, 0, "ready", {"runtime": model.runtime})
    here = {"block": lambda words: _block(model.infer, *map(float, words)), "probe": lambda words: _probe()}
    for number, line in enumerate(sys.stdin, start=1):
        command, *words = line.rstrip("\n").split("\t")
        facts = (here.get(command) or getattr(model, command))(words)
        about = {"peak_rss_bytes": peak_rss_bytes(), "cpu_ms": 1e3 * time.process_time()}
        _answer(answers, nonce, number, command, {**facts, **about})


def _answer(answers: Any, nonce: str, number: int, event: str, facts: Facts) -> None:
    answers.write(json.dumps({"nonce": nonce, "number": number, "event": event, **facts}) + "\n")
    answers.flush()


def _block(infer: Callable[[], object], least_runs: float, least_ms: float, most_ms: float) -> Facts:
    clock = time.perf_counter_ns
    samples: list[float] = []
    collecting = gc.isenabled()
    gc.disable()  # as timeit does: a pause of this program is not the runtime's
    try:
        start = now = clock()
        while now - start < most_ms * 1e6 and (len(samples) < least_runs or now - start < least_ms * 1e6):
            began = clock()
            infer()
            now = clock()
            samples.append((now - began) / 1e6)
    finally:
        if collecting:
            gc.enable()
    return {"samples_ms": samples}


def _probe() -> Facts:
    """The best of a few rounds of the same work, some 50 ms in all: a processor's clock, and not another program."""
    best = float("inf")
    for _ in range(PROBES):
        began, value = time.perf_counter_ns(), 1
        for _ in range(PROBE_STEPS):
            value = value * 1664525 + 1013904223 & 0xFFFFFFFF
        best = min(best, (time.perf_counter_ns() - began) / 1e6)
    return {"probe_ms": best, "value": value}


def timed_open(load: Callable[[], object], infer: Callable[[], object]) -> Facts:
    """Milliseconds of loading and of the first inference."""
    began = time.perf_counter_ns()
    load()
    loaded = time.perf_counter_ns()
    infer()
    answered = time.perf_counter_ns()
    return {"load_ms": (loaded - began) / 1e6, "first_ms": (answered - loaded) / 1e6}


def raw_numbers(given: str, dtype: str) -> Any:
    """The array of one INPUT."""
    import numpy as np

    shape, _, path = given.partition(":")
    return np.fromfile(path, dtype).reshape([int(size) for size in shape.split("x") if size])


class OnnxModel:
    """An ONNX file in onnxruntime's CPU provider."""

    def __init__(self, path: str, note: str = "") -> None:
        import onnxruntime

        self.path, self.threads = path, 1
        self.runtime = f"onnxruntime {onnxruntime.__version__} {_in_python(note)}"
        self.inputs: Facts = {}

    def open(self, words: Sequence[str]) -> Facts:
        self.threads = int(words[0])

        def load() -> None:
            self.session = self._session()
            self.inputs = self._read(words[1:])

        return {**timed_open(load, self.infer), "threads": self.threads}

    def infer(self) -> Any:
        return self.session.run(None, self.inputs)

    def run(self, words: Sequence[str]) -> Facts:
        if len(words) > 1:
            self.inputs = self._read(words[1:])
        Path(words[0]).write_bytes(self.infer()[0].tobytes())
        return {}

    def trace(self, words: Sequence[str]) -> Facts:
        session = self._session(words[1])
        for _ in range(int(words[0])):
            session.run(None, self.inputs)
        Path(session.end_profiling()).replace(words[1])  # it adds the time to the name
        return {}

    def _session(self, profile: str | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])

    def _read(self, inputs: Sequence[str]) -> Facts:
        names = {"float": "float32", "double": "float64"}  # of others as NumPy calls them
        arrays = {}
        for about, given in zip(self.session.get_inputs(), inputs, strict=True):
            kind = about.type.removeprefix("tensor(").removesuffix(")")
            arrays[about.name] = raw_numbers(given, names.get(kind, kind))
        return arrays


class PteModel:
    """An ExecuTorch file in the Python bindings of its wheel."""

    DTYPES: ClassVar = {0: "uint8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"}  # c10 ScalarType

    def __init__(self, path: str, note: str = "") -> None:
        from importlib.metadata import version

        import torch  # noqa: F401
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        self.path, self.pool, self.vendor = path, portable_lib, Runtime.get()
        self.runtime = f"executorch {version('executorch')} {_in_python(note)}"
        self.inputs: list[Any] = []

    def open(self, words: Sequence[str]) -> Facts:
        self.pool._unsafe_reset_threadpool(int(words[0]))  # before a program is loaded: afterwards it never returns

        def load() -> None:
            self.method = self.vendor.load_program(self.path).load_method("forward")
            self.inputs = self._read(words[1:])

        return {**timed_open(load, self.infer), "threads": self.pool._threadpool_get_thread_count()}

    def infer(self) -> Any:
        return self.method.execute(self.inputs)

    def run(self, words: Sequence[str]) -> Facts:
        if len(words) > 1:
            self.inputs = self._read(words[1:])
        Path(words[0]).write_bytes(self.infer()[0].contiguous().numpy().tobytes())
        return {}

    def trace(self, words: Sequence[str]) -> Facts:
        program = self.vendor.load_program(self.path, enable_etdump=True)
        method = program.load_method("forward")
        for _ in range(int(words[0])):
            method.execute(self.inputs)
        program._program.write_etdump_result_to_file(words[1])
        return {}

    def _read(self, inputs: Sequence[str]) -> list[Any]:
        import torch

        types = [
            self.DTYPES[int(self.method.metadata.input_tensor_meta(index).dtype())] for index in range(len(inputs))
        ]
        return [torch.from_numpy(raw_numbers(given, dtype)) for given, dtype in zip(inputs, types, strict=True)]


class CoreMLModel:
    """A Core ML package by coremltools; it chooses its threads itself."""

    DTYPES: ClassVar = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}  # ArrayDataType

    def __init__(self, path: str, units: str = "ALL") -> None:
        import coremltools

        self.vendor, self.path, self.units = coremltools, path, coremltools.ComputeUnit[units]
        self.runtime = f"Core ML of macOS {platform.mac_ver()[0]}, {units}, by coremltools {coremltools.__version__}"
        self.inputs: Facts = {}

    def open(self, words: Sequence[str]) -> Facts:
        def load() -> None:
            self.model = self.vendor.models.MLModel(self.path, compute_units=self.units)
            self.inputs = self._read(words[1:])

        return {**timed_open(load, self.infer), "threads": None}

    def infer(self) -> Any:
        return self.model.predict(self.inputs)

    def run(self, words: Sequence[str]) -> Facts:
        import numpy as np

        if len(words) > 1:
            self.inputs = self._read(words[1:])
        first = self.model.get_spec().description.output[0].name
        Path(words[0]).write_bytes(np.asarray(self.infer()[first]).tobytes())
        return {}

    def trace(self, words: Sequence[str]) -> Facts:
        """Where Core ML would run each operation, and its share of the cost: Core ML's estimate, nothing is run."""
        planner = self.vendor.models.compute_plan.MLComputePlan
        plan = planner.load_from_path(self.model.get_compiled_model_path(), compute_units=self.units)
        rows = []
        for operation in plan.model_structure.program.functions["main"].block.operations:
            cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
            usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
            device = type(usage.preferred_compute_device).__name__ if usage else None
            rows.append({"kind": operation.operator_name, "device": device, "cost": cost.weight if cost else None})
        Path(words[1]).write_text(json.dumps(rows), encoding="utf-8")
        return {}

    def _read(self, inputs: Sequence[str]) -> Facts:
        described = zip(self.model.get_spec().description.input, inputs, strict=True)
        return {
            about.name: raw_numbers(given, self.DTYPES[about.type.multiArrayType.dataType])
            for about, given in described
        }


def _in_python(note: str) -> str:
    return f"in Python ({note})" if note else "in Python"


def _peak_rss_bytes() -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


MODELS: dict[str, tuple[Callable[..., Model], str]] = {  # by suffix, also what pip installs for it
    ".onnx": (OnnxModel, "onnxruntime"),
    ".ort": (OnnxModel, "onnxruntime"),
    ".pte": (PteModel, "executorch"),
    ".mlpackage": (CoreMLModel, "coremltools"),
}


if __name__ == "__main__":
    make, package = MODELS[Path(sys.argv[2]).suffix]
    try:  # made here, with the imports: they are not timed
        import numpy as np  # noqa: F401

        model: Model = make(*sys.argv[2:])
    except ModuleNotFoundError as e:
        sys.exit(f"{e}: {sys.executable} -m pip install {package} numpy")
    serve(sys.argv[1], model, peak_rss_bytes=_peak_rss_bytes)
