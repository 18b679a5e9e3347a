"""onnxruntime's own profile: the JSON trace that `enable_profiling`, or `onnxruntime_perf_test -p`, writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegen.profilers.importers.traced import traced_measurement
from edgegen.profilers.measurement import Measurement
from edgegen.profilers.trace.operators import onnx_leaves, shares_by_kind


@dataclass(frozen=True)
class OrtProfile:
    source: str = "onnxruntime profile"
    form: str = "a JSON profile of onnxruntime (enable_profiling)"

    def fits(self, path: Path, content: bytes) -> bool:
        return content.lstrip().startswith(b"[") and b'"cat"' in content[:4096]

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        events = json.loads(content)
        if not all(isinstance(event, dict) for event in events):
            raise ValueError("it is a list of something else than events")
        runs = _durations(events, "model_run")
        if not runs:
            raise ValueError("the session was never run")
        loads = _durations(events, "session_initialization")
        measurement = traced_measurement(
            path,
            runs,
            source=self.source,
            setting=", ".join(_providers(events)),
            load_ms=loads[0] if loads else None,
            kinds=shares_by_kind(onnx_leaves(events)),
        )
        return (measurement,)


IMPORTER = OrtProfile()


def _durations(events: list[dict[str, Any]], name: str) -> list[float]:
    """Milliseconds of the session's events of a name, in their order."""
    durations_us = [event.get("dur") for event in events if event.get("cat") == "Session" and event.get("name") == name]
    if not all(isinstance(us, int | float) for us in durations_us):
        raise ValueError(f"an event {name} has no duration")
    return [us / 1000 for us in durations_us if isinstance(us, int | float)]


def _providers(events: list[dict[str, Any]]) -> list[str]:
    """The execution providers that ran nodes, in the order in which they appear."""
    arguments = [event.get("args") for event in events if event.get("cat") == "Node"]
    nodes = [node for node in arguments if isinstance(node, dict) and "provider" in node]
    return list(dict.fromkeys(str(node["provider"]) for node in nodes))
