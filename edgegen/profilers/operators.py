"""Where the time of a file goes: the runtime's own profile, summed by kind of operation. On the host: ONNX, ExecuTorch.

Tracing slows a file down: read the shares, and take a file's latency from `host.measure`.
"""

import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegen import child
from edgegen.quiet import EXECUTORCH, quiet

AROUND = {"OPERATOR_CALL", "DELEGATE_CALL"}  # events of ExecuTorch that hold others
FIRST_RUNS = 2  # not counted
FLOAT32 = 6  # ExecuTorch's number of it


@dataclass(frozen=True)
class OperatorTime:
    """All operations of one kind, as the runtime calls it: how many there are, and their ms in one inference."""

    kind: str
    count: int
    ms: float


def operators(backend: str, path: Path, *, threads: int = 1, runs: int = 10) -> list[OperatorTime]:
    """The slowest first; the means of `runs` inferences at batch 1 of normal noise, in a process of its own.

    ExecuTorch's method is `forward`, and its clock counts whole microseconds. Raises ExportError where the file does
    not run.
    """
    arguments = {"backend": backend, "path": str(path), "threads": threads, "runs": runs}
    rows = child.call("edgegen.profilers.operators:traced", arguments).value
    return [OperatorTime(**row) for row in rows]


def traced(*, backend: str, path: str, threads: int, runs: int) -> list[dict[str, Any]]:
    """The child's part of `operators`."""
    events = {"onnx": _onnx, "executorch": _executorch}[backend](path, threads, runs)
    totals: dict[str, tuple[int, float]] = {}
    for kind, ms in events:
        count, total = totals.get(kind, (0, 0.0))
        totals[kind] = count + 1, total + ms
    found = [OperatorTime(kind, count, ms) for kind, (count, ms) in totals.items()]
    return [asdict(one) for one in sorted(found, key=lambda one: -one.ms)]


def _onnx(path: str, threads: int, runs: int) -> Iterable[tuple[str, float]]:
    """Each node of the optimised graph, and its mean ms."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        given = {}
        for one in session.get_inputs():
            shape = [size if isinstance(size, int) else 1 for size in one.shape]
            is_float = one.type in ("tensor(float)", "tensor(float16)")
            dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}.get(one.type, np.int64)
            given[one.name] = rng.standard_normal(shape).astype(dtype) if is_float else np.zeros(shape, dtype)
        for _ in range(FIRST_RUNS + runs):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"] / 1e3)
    return [(kind, float(np.mean(samples[FIRST_RUNS:]))) for (kind, _), samples in nodes.items()]


def _executorch(path: str, threads: int, runs: int) -> Iterable[tuple[str, float]]:
    """Each operation in and outside of the delegates, and its mean ms."""
    import torch

    with quiet(EXECUTORCH):
        from executorch.devtools import Inspector
        from executorch.extension.pybindings.portable_lib import _load_for_executorch, _unsafe_reset_threadpool

    _unsafe_reset_threadpool(threads)
    generator = torch.Generator().manual_seed(0)
    given = []
    with quiet(EXECUTORCH), tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        module = _load_for_executorch(path, enable_etdump=True)
        meta = module.method_meta("forward")
        for about in map(meta.input_tensor_meta, range(meta.num_inputs())):
            is_float = about.dtype() == FLOAT32
            made = torch.randn(about.sizes(), generator=generator)
            given.append(made if is_float else torch.zeros(about.sizes(), dtype=torch.int64))
        for _ in range(FIRST_RUNS + runs):
            module.run_method("forward", given)
        dump = Path(folder) / "forward.etdump"
        module.write_etdump_result_to_file(str(dump))
        blocks = Inspector(etdump_path=str(dump)).event_blocks
    found = []
    for block in blocks:
        for event in block.events:
            if block.name != "Execute" or event.name in AROUND or event.name.startswith("Method::"):
                continue
            kind = re.sub(r" #\d+$", "", event.name).removeprefix("native_call_")
            found.append((kind, float(np.mean(event.perf_data.raw[FIRST_RUNS:]))))
    return found
