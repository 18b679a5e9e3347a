"""Where the time of a file goes: what a runtime's own profile says, summed by kind of operation.

Tracing slows a file down: read the shares, and take a file's latency from a run without it.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.quiet import EXECUTORCH, quiet

AROUND = {"OPERATOR_CALL", "DELEGATE_CALL"}  # events of ExecuTorch that hold others
FIRST_RUNS = 2  # not counted


@dataclass(frozen=True)
class OperatorTime:
    """All operations of one kind, as the runtime calls it: how many there are, and their ms in one inference."""

    kind: str
    count: int
    ms: float


def by_kind(*, form: str, trace: str) -> list[dict[str, Any]]:
    """`OperatorTime` rows, the slowest first, of what a runner's command `trace` wrote: of "onnx" or "pte".

    The means of all runs but the FIRST_RUNS; ExecuTorch's clock counts whole microseconds. For `child.call`.
    """
    totals: dict[str, tuple[int, float]] = {}
    for kind, ms in {"onnx": _onnx, "pte": _pte}[form](trace):
        count, total = totals.get(kind, (0, 0.0))
        totals[kind] = count + 1, total + ms
    found = [OperatorTime(kind, count, ms) for kind, (count, ms) in totals.items()]
    return [asdict(one) for one in sorted(found, key=lambda one: -one.ms)]


def _onnx(trace: str) -> Iterable[tuple[str, float]]:
    """Each node of the optimised graph, and its mean ms."""
    nodes: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(Path(trace).read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"] / 1e3)
    return [(kind, float(np.mean(samples[FIRST_RUNS:]))) for (kind, _), samples in nodes.items()]


def _pte(trace: str) -> Iterable[tuple[str, float]]:
    """Each operation in and outside of the delegates, and its mean ms."""
    with quiet(EXECUTORCH):
        from executorch.devtools import Inspector

        blocks = Inspector(etdump_path=trace).event_blocks
    found = []
    for block in blocks:
        for event in block.events:
            if block.name != "Execute" or event.name in AROUND or event.name.startswith("Method::"):
                continue
            kind = re.sub(r" #\d+$", "", event.name).removeprefix("native_call_")
            found.append((kind, float(np.mean(event.perf_data.raw[FIRST_RUNS:]))))
    return found
