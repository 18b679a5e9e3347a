"""A latency that another program measured: the record of the importers."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# "estimate": the only figure of a source that does not say which statistic it is.
Statistic = Literal["min", "mean", "p50", "p90", "p95", "p99", "p999", "max", "estimate"]
LONGEST_MS = 1e9  # eleven days: a longer time is a mistake


@dataclass(frozen=True)
class Measurement:
    """A latency that was measured elsewhere, as its `source` reports it; values that it does not report are None.

    `what` was measured on `device` under `setting` (runtime, precision, threads); `file` is the name of the file with
    the measurement. `times_ms` has the source's figures under their own names. `load_ms` and `first_ms` are of a fresh
    process. `percentiles_ms` as in `Latency`. `kinds` are shares of the time by kind of operation, from a trace.
    Raises ValueError for a time that is not positive and finite.
    """

    source: str
    file: str
    what: str
    device: str | None
    setting: str
    times_ms: dict[Statistic, float]
    p50_ci95_ms: tuple[float, float] | None = None
    runs: int | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_bytes: int | None = None
    percentiles_ms: tuple[float, ...] | None = None
    kinds: dict[str, float] = field(default_factory=dict)
    verdict: Literal["ok", "noisy", "failed", "not judged"] = "not judged"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, ms in (*self.times_ms.items(), ("load", self.load_ms), ("first", self.first_ms)):
            if ms is not None and not 0 < ms < LONGEST_MS:  # false for NaN, too
                raise ValueError(f"{name} of {self.what} is {ms} ms")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
