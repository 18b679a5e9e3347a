"""Opens the files of one runtime and runs them when told: for bench_peers.py, in the peer's own interpreter.

    python runner.py RUNTIME THREADS        then lines of JSON on stdin, an answer on stdout to each:
    {"open": FILE, "inputs": [A.npy, ...]} -> {"file": 0}   inputs in the file's order, (samples, ...)
    {"compute": 0, "into": OUT.npy}        -> {}            every sample by itself, (samples, ...)
    {"time": 0}                            -> {"ms": 1.2, "cpu_ms": 1.1}   the first sample, after a run of warm-up
    {"operations": 0}                      -> {"Conv": 58}  what the runtime runs, where it tells
    a failure                              -> {"error": "one line"}   what the runtime says of it is on stderr

`cpu_ms` is the processor time of the whole process: at one thread, `ms` without the waiting for other programs.
Imports nothing of edgegen, and of the runtimes only its own.
"""

import collections
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = list[np.ndarray[Any, Any]]
Run = Callable[[Arrays], Any]


class Opened:
    """A file, ready: `run` takes arrays of one sample; `operations` counts what the runtime runs, by kind."""

    def __init__(self, run: Run, operations: dict[str, int]) -> None:
        self.run, self.operations = run, operations


def onnx(path: str, threads: int) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    optimized = f"{path}.optimized"
    options.optimized_model_filepath = optimized
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    kinds: dict[str, int] = {}
    if Path(optimized).is_file():
        import onnx as format_of_onnx

        nodes = format_of_onnx.load(optimized, load_external_data=False).graph.node
        kinds = dict(collections.Counter(node.op_type for node in nodes))
        Path(optimized).unlink()
    return Opened(lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0], kinds)


def executorch(path: str, threads: int) -> Opened:
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(Path(path).read_bytes())
    method = program.load_method("forward")

    def run(arrays: Arrays, _alive: Any = program) -> Any:  # the method points into its program
        return method.execute([torch.from_numpy(array) for array in arrays])[0].numpy()

    return Opened(run, {})


def ncnn(path: str, threads: int) -> Opened:
    import ncnn as runtime

    net = runtime.Net()
    net.opt.num_threads = threads
    if net.load_param(path) or net.load_model(str(Path(path).with_suffix(".bin"))):
        raise RuntimeError("ncnn does not load the file")  # and says why on stderr
    lines = Path(path).read_text().splitlines()[2:]
    inputs, (output, *_) = net.input_names(), net.output_names()

    def run(arrays: Arrays) -> Any:
        extractor = net.create_extractor()
        for name, array in zip(inputs, arrays, strict=True):
            narrow = array.astype(np.int32) if array.dtype == np.int64 else array
            without_batch = narrow[0] if narrow.ndim > 1 else narrow
            extractor.input(name, runtime.Mat(np.ascontiguousarray(without_batch)).clone())
        return np.array(extractor.extract(output)[1])[None]

    return Opened(run, dict(collections.Counter(line.split()[0] for line in lines)))


def mnn(path: str, threads: int) -> Opened:
    import MNN.expr as expr
    import MNN.nn as nn

    settings = {"backend": "CPU", "precision": "normal", "memory": "low", "numThread": threads}
    names = json.loads(Path(path).with_suffix(".facts.json").read_text())
    manager = nn.create_runtime_manager((settings,))
    module = nn.load_module_from_file(path, names["inputs"], names["outputs"], runtime_manager=manager)

    def run(arrays: Arrays) -> Any:
        variables = []
        for array in arrays:
            narrow = array.astype(np.int32) if array.dtype == np.int64 else array
            kind = expr.int if narrow.dtype == np.int32 else expr.float
            variables.append(expr.const(narrow, list(narrow.shape), expr.NCHW, kind))
        result = module.forward(variables)
        first = result[0] if isinstance(result, list | tuple) else result
        return np.array(expr.convert(first, expr.NCHW).read())

    return Opened(run, names.get("operations", {}))


def _rounded(array: Any, detail: Any) -> Any:
    """What a tensor of LiteRT takes: floats as they are, or by its scale in whole numbers."""
    scale, zero_point = detail["quantization"]
    if not scale:
        return array.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(array / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def litert(path: str, threads: int) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    inputs = sorted(interpreter.get_input_details(), key=lambda detail: detail["name"])  # ..._args_0, ..._args_1
    (output, *_) = interpreter.get_output_details()

    def run(arrays: Arrays) -> Any:
        for detail, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(detail["index"], _rounded(array, detail))
        interpreter.invoke()
        numbers = interpreter.get_tensor(output["index"])
        scale, zero_point = output["quantization"]  # (0, 0) of a float tensor
        return (numbers.astype(np.float32) - zero_point) * np.float32(scale) if scale else numbers

    kinds = collections.Counter(detail["op_name"] for detail in interpreter._get_ops_details())
    return Opened(run, dict(kinds))


RUNTIMES = {"onnx": onnx, "executorch": executorch, "ncnn": ncnn, "mnn": mnn, "litert": litert}


def serve(runtime: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what runtimes print is no answer
    files: list[tuple[Opened, Arrays]] = []
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), files, runtime, threads)
        except Exception as e:  # noqa: BLE001  whatever a runtime raises is its answer
            answer = {"error": " ".join(f"{type(e).__name__}: {e}".split())}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(order: dict[str, Any], files: list[tuple[Opened, Arrays]], runtime: str, threads: int) -> dict[str, Any]:
    if "open" in order:
        inputs = [np.load(path, allow_pickle=False) for path in order["inputs"]]
        opened = RUNTIMES[runtime](order["open"], threads)
        files.append((opened, inputs))
        return {"file": len(files) - 1}
    if "compute" in order:
        opened, inputs = files[order["compute"]]
        samples = range(len(inputs[0]))
        np.save(order["into"], np.concatenate([opened.run([a[i : i + 1] for a in inputs]) for i in samples]))
        return {}
    if "operations" in order:
        return dict(files[order["operations"]][0].operations)
    opened, inputs = files[order["time"]]
    first = [array[:1] for array in inputs]
    opened.run(first)
    wall, processor = time.perf_counter(), time.process_time()
    opened.run(first)
    spent = time.process_time() - processor
    return {"ms": 1e3 * (time.perf_counter() - wall), "cpu_ms": 1e3 * spent}


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
