"""edgegen's own: what `edgegen profile -o` wrote, on this machine or another."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgegen.profilers.compare import label_of
from edgegen.profilers.schema import Profile, Result, read
from edgegen.profilers.timing.stats import percentiles
from edgegen.types import Measurement, Statistic


@dataclass(frozen=True)
class EdgegenProfile:
    source: str = "edgegen.profile/1"
    form: str = "a JSON file of edgegen profile -o"

    def fits(self, path: Path, content: bytes) -> bool:
        return content.lstrip().startswith(b"{") and b'"edgegen.profile/1"' in content

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        profile = read(path)
        if not profile.results:
            raise ValueError("no file was measured")
        return tuple(_measurement(path, profile, one, self.source) for one in profile.results)


IMPORTER = EdgegenProfile()


def _measurement(path: Path, profile: Profile, one: Result, source: str) -> Measurement:
    times: dict[Statistic, float] = {}
    latency, notes = one.latency, one.verdict.reasons
    if latency is not None:
        times = {"p50": latency.p50_ms, "p90": latency.p90_ms, "min": latency.min_ms, "mean": latency.mean_ms}
    setting = [one.config.runtime, one.artifact.scheme or one.artifact.format, f"profile {profile.profile}"]
    cold = one.cold if latency is not None else ()
    return Measurement(
        source=source,
        file=path.name,
        what=label_of(one),
        device=_device(profile),
        setting=", ".join(part for part in setting if part),
        times_ms=times,
        p50_ci95_ms=None if latency is None else latency.p50_ci95_ms,
        runs=None if latency is None else latency.runs,
        load_ms=statistics.median(start.load_ms for start in cold) if cold else None,
        first_ms=statistics.median(start.first_ms for start in cold) if cold else None,
        peak_bytes=one.peak_rss_bytes,
        percentiles_ms=None if latency is None else percentiles([np.array(block) for block in latency.blocks_ms]),
        kinds={kind.kind: kind.share for kind in one.ops},
        verdict=one.verdict.status,
        notes=notes,
    )


def _device(profile: Profile) -> str:
    told = [profile.target.get(key) for key in ("cpu", "os")]
    return ": ".join([profile.device, ", ".join(str(one) for one in told if one)]).removesuffix(": ")
