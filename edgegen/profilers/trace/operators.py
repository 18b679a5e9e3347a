"""Where the time of a file goes: each operation in a runtime's own profile, and sums of them.

Tracing slows a file down: read the shares, and take a file's latency from a run without it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.profilers.measurement import LONGEST_MS
from edgegen.support.storage import read_json
from edgegen.support.vendor_logs import EXECUTORCH, quiet

AROUND = {"OPERATOR_CALL", "DELEGATE_CALL"}  # events of ExecuTorch that hold others
FIRST_RUNS = 2  # not counted
OUTSIDE = "outside"  # of every delegate
SUFFIX = "_kernel_time"  # of onnxruntime's events of nodes


@dataclass(frozen=True)
class Leaf:
    """One operation of the file as the runtime runs it, and its mean ms in one inference.

    `place` is the delegate ("delegate 1") or OUTSIDE of a `.pte`, the execution provider of an ONNX file, the compute
    device that Core ML prefers. `block` is the path of the module of the network that it computes; None is not known.
    Of Core ML, which runs nothing for it, `ms` is its estimated share of the cost.
    """

    name: str
    kind: str
    place: str
    ms: float
    block: str | None = None


@dataclass(frozen=True)
class OperatorTime:
    """All operations of one kind, as the runtime calls it: how many there are, and their ms in one inference."""

    kind: str
    count: int
    ms: float


def read_trace(*, form: str, trace: str) -> list[Leaf]:
    """What a runner's command `trace` wrote, in the order in which the operations run, by the file's form.

    The means of all runs but the FIRST_RUNS; ExecuTorch's clock counts whole microseconds.
    """
    if form == "onnx":
        return onnx_leaves(read_json(Path(trace)))
    if form == "mlpackage":
        rows = read_json(Path(trace))
        return [Leaf(row["kind"], row["kind"], row["device"], row["cost"]) for row in rows if row["cost"] is not None]
    return _pte_leaves(_blocks(trace))


def etdump(*, path: str) -> dict[str, Any]:
    """What an ETDump says: `load_ms`, `runs_ms` of the method's executions, `kinds`. For `isolation.call`."""
    blocks = _blocks(path)
    times: dict[str, list[float]] = {}
    for block in blocks:
        for event in block.events:
            if event.name in ("Method::execute", "Program::load_method"):
                times.setdefault(event.name, []).extend(map(float, event.perf_data.raw))
    return {
        "load_ms": next(iter(times.get("Program::load_method", [])), None),
        "runs_ms": times.get("Method::execute", []),
        "kinds": shares_by_kind(_pte_leaves(blocks)),
    }


def by_kind(rows: Iterable[Leaf]) -> list[OperatorTime]:
    """The operations summed by kind, the slowest first."""
    totals: dict[str, tuple[int, float]] = {}
    for row in rows:
        count, total = totals.get(row.kind, (0, 0.0))
        totals[row.kind] = count + 1, total + row.ms
    times = [OperatorTime(kind, count, ms) for kind, (count, ms) in totals.items()]
    return sorted(times, key=lambda time: -time.ms)


def shares_by_kind(rows: Sequence[Leaf]) -> dict[str, float]:
    """The share of each kind in the time of all operations; empty where all times are 0 on the runtime's clock."""
    total = sum(row.ms for row in rows)
    return {time.kind: time.ms / total for time in by_kind(rows)} if total > 0 else {}


def onnx_leaves(events: Iterable[Any]) -> list[Leaf]:
    """Each node of the optimised graph, from onnxruntime's trace. Raises ValueError for one that is damaged."""
    nodes: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name")).endswith(SUFFIX):
            try:
                about = event["args"]
                key = event["name"].removesuffix(SUFFIX), str(about["op_name"]), str(about["provider"])
            except (KeyError, TypeError) as e:
                raise ValueError(f"the event {event.get('name')} is incomplete: {e}") from e
            nodes.setdefault(key, []).append(milliseconds(event))
    return [Leaf(*key, _mean(samples)) for key, samples in nodes.items()]


def milliseconds(event: Mapping[str, Any]) -> float:
    """The duration of an event of onnxruntime's trace. Raises ValueError where it has none that can be."""
    us = event.get("dur")
    if not isinstance(us, int | float) or not 0 <= us < 1e3 * LONGEST_MS:
        raise ValueError(f"the event {event.get('name')} has no duration")
    return us / 1e3


def _blocks(path: str) -> Any:
    with quiet(EXECUTORCH):
        from executorch.devtools import Inspector

        return Inspector(etdump_path=path).event_blocks


def _pte_leaves(blocks: Any) -> list[Leaf]:
    """Each operation in and outside of the delegates; an instruction of the program is one of either."""
    leaves: list[Leaf] = []
    delegates: dict[int, str] = {}
    for block in blocks:
        for event in block.events:
            if block.name != "Execute" or event.name in AROUND or event.name.startswith("Method::"):
                continue
            place = OUTSIDE
            if event.is_delegated_op:
                place = delegates.setdefault(event._instruction_id, f"delegate {len(delegates) + 1}")
            name = event.name.removeprefix("native_call_")
            leaves.append(Leaf(name, re.sub(r" #\d+$", "", name), place, _mean(event.perf_data.raw)))
    return leaves


def _mean(samples: Sequence[float]) -> float:
    return float(np.mean(samples[FIRST_RUNS:] or samples))
