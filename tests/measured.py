"""Made-up measurements, and what real ones need."""

import shutil
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgegen.profilers.runners import programs
from edgegen.profilers.runners.toolchain import NoProgramError, this_system
from edgegen.profilers.schema import MeasuredFile, Profile
from edgegen.profilers.timing.stats import summarize


def needs_runners(system: str | None = None) -> None:
    """Skips a test where a runner in C++ cannot be made."""
    for form in ("onnx", "pte"):
        try:
            programs.program(form, system or this_system())
        except NoProgramError as e:
            pytest.skip(f"{e}; python tests/device_parts.py")


needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler: apt install g++")


def result(blocks: NDArray[np.float64], **changes: Any) -> MeasuredFile:
    """A file whose warm runs are `blocks` (block, run) in ms."""
    summary = summarize(list(blocks))
    latency = {
        "blocks_ms": blocks.tolist(),
        "runs": summary.runs,
        "p50_ms": summary.p50_ms,
        "p50_ci95_ms": summary.p50_ci95_ms,
        "p90_ms": summary.p90_ms,
        "min_ms": float(blocks.min()),
        "mean_ms": float(blocks.mean()),
        "converged": True,
    }
    content: dict[str, Any] = {
        "artifact": {
            "name": "net.pte",
            "format": "pte",
            "sha256": "0" * 64,
            "nbytes": 10,
            "scheme": "fp32",
            "inputs": [{"name": "sample", "dtype": "float32", "shape": [1, 1, 8, 8]}],
        },
        "config": {"runtime": "t", "threads_requested": 1, "threads_actual": 1},
        "numerics": {"reference": "r", "snr_db": None, "max_abs": 0.0, "passed": True},
        "cold": [{"load_ms": 1.0, "first_ms": 2.0}],
        "warm_up": {"runs": 10, "stable": True},
        "latency": latency,
        "peak_rss_bytes": 1000,
        "verdict": {"status": "ok"},
    }
    return MeasuredFile.model_validate({**content, **changes})


def profile(*results: MeasuredFile) -> Profile:
    return Profile(
        created="2026-01-01T00:00:00Z",
        tool="edgegen 0",
        device="host",
        target={"cpu": None, "model": None, "arch": None, "threads": None, "os": None},
        profile="quick",
        others_cores=None,
        stolen_cores=None,
        results=results,
    )
