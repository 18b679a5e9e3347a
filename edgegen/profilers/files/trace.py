"""A traced pass of a file on a device: each operation, where it ran, and which block of the network it belongs to."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgegen.profilers.devices.device import Device
from edgegen.profilers.files.subject import Placement
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.trace.module_paths import join_onnx, join_pte
from edgegen.profilers.trace.operators import FIRST_RUNS, Leaf, read_trace
from edgegen.support import isolation

TRACED = 10  # inferences of a traced pass


def traced(
    placement: Placement, threads: int, device: Device, temporary: Path, *, timeout_s: float, runs: int = TRACED
) -> list[Leaf]:
    """A process of its own, because tracing slows down and takes memory."""
    subject = placement.subject
    trace = temporary / f"{subject.path.name}.trace"
    with Worker(device, placement.command, timeout_s=timeout_s) as worker:
        worker.ready().ask("open", threads, *placement.inputs)
        remote_path = device.place(trace.name)
        worker.ask("trace", FIRST_RUNS + runs, remote_path)
        device.get(remote_path, trace)
    arguments = {"form": subject.facts.format, "trace": str(trace), "path": str(subject.path)}
    return [Leaf(**row) for row in isolation.call("edgegen.profilers.files.trace:leaves", arguments).value]


def leaves(*, form: str, trace: str, path: str) -> list[dict[str, Any]]:
    """`Leaf` rows, in the order in which they run, of a trace of the file `path`. For `isolation.call`."""
    from edgegen.inspection import module_paths

    rows = read_trace(form=form, trace=trace)
    if form == "onnx" and path.endswith(".onnx"):
        joined = join_onnx(rows, module_paths.of_onnx(Path(path)))
    elif form != "pte":  # Core ML and the ORT format name no modules
        joined = rows
    else:
        joined = join_pte(rows, module_paths.of_pte(Path(path)))
    return [asdict(leaf) for leaf in joined]
