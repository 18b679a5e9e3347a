"""Times files of one runtime in turns, in a process of their own: for bench_export.py and bench_quantize.py.

A noisy machine slows all alike; each round runs them in another order, because the file before leaves its data in the
caches. With them runs the machine's fp32 matrix product (torch.mm, 1024 x 1024), the physical limit.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SIZE = 1024  # of the matrix product
PAUSE = 0.02  # seconds: the idle threads of a runtime spin for a while, on the core that the next one needs

Entry = tuple[Path, Sequence[NDArray[Any]]]  # a file, and its inputs in its order


def measure(
    runtime: str, files: Sequence[Entry], *, threads: int, rounds: int, processor_time: bool = False
) -> list[list[float]]:
    """Milliseconds of each file of "onnx" or "executorch", and last of the matrix product, in each round.

    With `processor_time`, those in which the processor worked for it: for a machine that is not idle.
    """
    entries = [[str(path), [[array.tolist(), str(array.dtype)] for array in arrays]] for path, arrays in files]
    job = {"runtime": runtime, "files": entries, "threads": threads, "rounds": rounds, "processor_time": processor_time}
    process = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "2000"},
    )
    milliseconds: list[list[float]] = json.loads(process.stdout.splitlines()[-1])
    return milliseconds


def _race() -> None:
    job = json.loads(sys.stdin.read())
    threads = job["threads"]
    torch.set_num_threads(threads)
    runs = []
    for path, inputs in job["files"]:
        arrays = [np.array(values, dtype) for values, dtype in inputs]
        runs.append(_runner(job["runtime"], path, arrays, threads))
    matrix = torch.randn(SIZE, SIZE)
    runs.append(lambda: torch.mm(matrix, matrix))
    clock = time.process_time if job["processor_time"] else time.perf_counter
    samples: list[list[float]] = [[] for _ in runs]
    turns, order = list(zip(runs, samples, strict=True)), random.Random(0)
    for _ in range(job["rounds"]):
        order.shuffle(turns)
        for run, times in turns:
            time.sleep(PAUSE)
            run()
            began = clock()
            run()
            times.append(1e3 * (clock() - began))
    print(json.dumps(samples))


def _runner(runtime: str, path: str, arrays: list[Any], threads: int) -> Callable[[], object]:
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {value.name: array for value, array in zip(session.get_inputs(), arrays, strict=True)}
        return lambda: session.run(None, inputs)
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(Path(path).read_bytes())
    method = program.load_method("forward")
    tensors = [torch.from_numpy(array) for array in arrays]
    return lambda _alive=program: method.execute(tensors)  # the method points into its program


if __name__ == "__main__":
    _race()
