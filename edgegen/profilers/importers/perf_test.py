"""onnxruntime_perf_test: what it prints, and the result file that it appends to.

    Session creation time cost: 0.0102016 s            MODEL,SECONDS,PEAK_BYTES,CPU_PERCENT,RUN     a line a run,
    First inference time cost: 2 ms                    squeezenet,0.00185739,36696064,96,0          RUN from 0
    Average inference time cost: 1.85739 ms
    P50 Latency: 0.00185674 s                          with -s; older ones: "P50 Latency is 0.00185674sec"

Written after github.com/microsoft/onnxruntime, onnxruntime/test/perftest/performance_runner.cc.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgegen.profilers.measurement import Measurement, Statistic
from edgegen.profilers.timing.stats import Samples, percentiles

NUMBER = r"([0-9][0-9.eE+-]*|-?nan|-?inf)"
LINE = re.compile(rf"^([^,\n]*),{NUMBER},(\d+),-?\d+,(\d+)\r?$", re.MULTILINE)
START = "Session creation time cost"
STATISTICS: dict[str, Statistic] = {
    "Min": "min",
    "Max": "max",
    "P50": "p50",
    "P90": "p90",
    "P95": "p95",
    "P99": "p99",
    "P999": "p999",
}
UNIT = {"s": 1000.0, "sec": 1000.0, "ms": 1.0}


@dataclass(frozen=True)
class PerfTest:
    source: str = "onnxruntime_perf_test"
    form: str = "the output or the result file of onnxruntime_perf_test"

    def fits(self, path: Path, content: bytes) -> bool:
        return bool(re.search(rb"^(P50 Latency|Average inference time cost)", content, re.MULTILINE)) or bool(
            LINE.match(content[:1000].decode("utf-8", "replace").split("\n")[0])
        )

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        text = content.decode("utf-8")
        if LINE.match(text.split("\n")[0]):
            return tuple(self._runs(path, *session) for session in _sessions(text))
        starts = [match.start() for match in re.finditer(rf"^{START}", text, re.MULTILINE)] or [0]
        ends = [*starts[1:], len(text)]
        return tuple(self._summary(path, text[start:end]) for start, end in zip(starts, ends, strict=True))

    def _runs(self, path: Path, model: str, seconds: list[float], peak_bytes: int) -> Measurement:
        samples: Samples = 1000.0 * np.array(seconds)
        if not (np.isfinite(samples) & (samples > 0)).all():
            raise ValueError(f"a run of '{model}' took no time, or none that is a number")
        p50, p90, p99 = (float(value) for value in np.percentile(samples, [50, 90, 99]))
        return Measurement(
            source=self.source,
            file=path.name,
            what=model or path.stem,
            device=None,
            setting="",
            times_ms={"p50": p50, "p90": p90, "p99": p99, "mean": float(samples.mean()), "min": float(samples.min())},
            runs=len(samples),
            peak_bytes=peak_bytes,
            percentiles_ms=percentiles([samples]),
        )

    def _summary(self, path: Path, text: str) -> Measurement:
        times: dict[Statistic, float] = {}
        for name, statistic in STATISTICS.items():
            ms = _figure(rf"{name} Latency(?::| is)", text)
            if ms is not None:
                times[statistic] = ms
        mean = _figure("Average inference time cost(?: total)?:", text)
        if mean is not None:
            times["mean"] = mean
        if not times:
            raise ValueError("it has no latency: it may have been cut short")
        return Measurement(
            source=self.source,
            file=path.name,
            what=path.stem,
            device=None,
            setting="",
            times_ms=times,
            runs=_count("(?:Total inference requests|Runs):", text),
            load_ms=_figure(f"{START}:", text),
            first_ms=_figure("First inference time cost:", text) or None,  # whole milliseconds: 0 is not known
            peak_bytes=_count("Peak working set size:", text),
        )


IMPORTER = PerfTest()


def _sessions(text: str) -> Iterator[tuple[str, list[float], int]]:
    """(model, seconds of its runs, peak bytes): each program that was run appended its own, counted from 0."""
    model, peak = "", 0
    seconds: list[float] = []
    for name, took, nbytes, run in LINE.findall(text):
        if int(run) == 0 and seconds:
            yield model, seconds, peak
            seconds = []
        if int(run) != len(seconds):
            raise ValueError(f"run {len(seconds)} of '{name}' is missing")
        model, peak = name, int(nbytes)
        seconds.append(float(took))
    yield model, seconds, peak


def _figure(label: str, text: str) -> float | None:
    """The milliseconds behind a label at the start of a line."""
    line = re.search(rf"^{label} *{NUMBER} *(s|sec|ms)\b", text, re.MULTILINE)
    return None if line is None else float(line[1]) * UNIT[line[2]]


def _count(label: str, text: str) -> int | None:
    line = re.search(rf"^{label} *(\d{{1,18}})\b", text, re.MULTILINE)
    return None if line is None else int(line[1])
