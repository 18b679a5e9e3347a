"""A traced pass of a file on a device: each operation, where it ran, and which block of the network it belongs to."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgegen.profilers.devices.device import Device
from edgegen.profilers.files.subject import Candidate
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.trace.module_paths import join_onnx, join_pte
from edgegen.profilers.trace.operators import FIRST_RUNS, Leaf, read_trace
from edgegen.support import isolation

TRACED = 10  # inferences of a traced pass


def traced(
    candidate: Candidate, threads: int, device: Device, temporary: Path, *, timeout_s: float, runs: int = TRACED
) -> list[Leaf]:
    """A process of its own, because tracing slows down and takes memory."""
    assert candidate.command is not None, "put before"
    trace = temporary / f"{candidate.path.name}.trace"
    worker = Worker(device, candidate.command, timeout_s=timeout_s)
    try:
        worker.ask("open", threads, *candidate.inputs)
        place = device.place(trace.name)
        worker.ask("trace", FIRST_RUNS + runs, place)
        device.get(place, trace)
    finally:
        worker.stop()
    arguments = {"form": candidate.facts.format, "trace": str(trace), "path": str(candidate.path)}
    return [Leaf(**row) for row in isolation.call("edgegen.profilers.files.trace:leaves", arguments).value]


def leaves(*, form: str, trace: str, path: str) -> list[dict[str, Any]]:
    """`Leaf` rows, in the order in which they run, of a trace of the file `path`. For `child.call`."""
    from edgegen.inspection import module_paths

    rows = read_trace(form=form, trace=trace)
    if form == "onnx":
        joined = join_onnx(rows, module_paths.of_onnx(Path(path)))
    elif form == "mlpackage":
        joined = rows
    else:
        joined = join_pte(rows, module_paths.of_pte(Path(path)))
    return [asdict(one) for one in joined]
