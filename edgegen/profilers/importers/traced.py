"""What a runtime's own trace says of a whole inference, as one measurement: ETDump and onnxruntime's profile alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgegen.profilers.measurement import Measurement
from edgegen.profilers.trace.operators import FIRST_RUNS

NOTE = "traced"  # which slows down


def traced_measurement(
    path: Path,
    runs_ms: Sequence[float],
    *,
    source: str,
    setting: str,
    load_ms: float | None,
    kinds: Mapping[str, float],
) -> Measurement:
    """The figures of all runs but the FIRST_RUNS, where there are more. `runs_ms` has at least one."""
    kept = runs_ms[FIRST_RUNS:] or runs_ms
    return Measurement(
        source=source,
        file=path.name,
        what=path.stem,
        device=None,
        setting=setting,
        times_ms={"p50": float(np.median(kept)), "mean": float(np.mean(kept)), "min": min(kept)},
        runs=len(kept),
        load_ms=load_ms,
        first_ms=runs_ms[0] if len(runs_ms) > 1 else None,
        kinds=dict(kinds),
        notes=(NOTE,) if len(runs_ms) > FIRST_RUNS else (NOTE, "the first runs are among them"),
    )
