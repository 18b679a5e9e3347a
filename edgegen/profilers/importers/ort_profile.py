"""onnxruntime's own profile: the JSON trace that `enable_profiling`, or `onnxruntime_perf_test -p`, writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.profilers.trace.operators import FIRST_RUNS, onnx_leaves, shares_by_kind
from edgegen.types import Measurement

NOTE = "traced"  # which slows down


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
        kept = runs[FIRST_RUNS:] or runs
        loads = _durations(events, "session_initialization")
        return (
            Measurement(
                source=self.source,
                file=path.name,
                what=path.stem,
                device=None,
                setting=", ".join(_providers(events)),
                times_ms={"p50": float(np.median(kept)), "mean": float(np.mean(kept)), "min": min(kept)},
                runs=len(kept),
                load_ms=loads[0] if loads else None,
                first_ms=runs[0] if len(runs) > 1 else None,
                kinds=shares_by_kind(onnx_leaves(events)),
                notes=(NOTE,) if len(runs) > FIRST_RUNS else (NOTE, "the first runs are among them"),
            ),
        )


IMPORTER = OrtProfile()


def _durations(events: list[dict[str, Any]], name: str) -> list[float]:
    """Milliseconds of the session's events of a name, in their order."""
    found = [event.get("dur") for event in events if event.get("cat") == "Session" and event.get("name") == name]
    if not all(isinstance(us, int | float) for us in found):
        raise ValueError(f"an event {name} has no duration")
    return [us / 1000 for us in found if isinstance(us, int | float)]


def _providers(events: list[dict[str, Any]]) -> list[str]:
    """The execution providers that ran nodes, in the order in which they appear."""
    arguments = [event.get("args") for event in events if event.get("cat") == "Node"]
    return list(dict.fromkeys(str(one["provider"]) for one in arguments if isinstance(one, dict) and "provider" in one))
