"""edgegen's own: what `edgegen profile -o` wrote, on this machine or another."""

from dataclasses import dataclass
from pathlib import Path

from edgegen.profilers.files.record import latency_of
from edgegen.profilers.measurement import Measurement, Statistic
from edgegen.profilers.schema import MeasuredFile, Profile, read


@dataclass(frozen=True)
class EdgegenProfile:
    source: str = "edgegen.profile/1"
    form: str = "a JSON file of edgegen profile -o"

    def fits(self, path: Path, content: bytes) -> bool:
        unescaped = content.replace(rb"\/", b"/")  # as some writers of JSON, Android's too, have a slash
        return content.lstrip().startswith(b"{") and b'"edgegen.profile/1"' in unescaped

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        profile = read(path)
        if not profile.results:
            raise ValueError("no file was measured")
        return tuple(_measurement(path, profile, measured, self.source) for measured in profile.results)


IMPORTER = EdgegenProfile()


def _measurement(path: Path, profile: Profile, measured: MeasuredFile, source: str) -> Measurement:
    times: dict[Statistic, float] = {}
    latency, summary = measured.latency, latency_of(measured)
    if latency is not None:
        times = {"p50": latency.p50_ms, "p90": latency.p90_ms, "min": latency.min_ms, "mean": latency.mean_ms}
    scheme = measured.artifact.scheme or measured.artifact.format
    setting = [measured.config.runtime, scheme, f"profile {profile.profile}"]
    return Measurement(
        source=source,
        file=path.name,
        what=measured.label,
        device=_device(profile),
        setting=", ".join(part for part in setting if part),
        times_ms=times,
        p50_ci95_ms=summary.p50_ci95_ms,
        runs=None if latency is None else latency.runs,
        load_ms=summary.load_ms,
        first_ms=summary.first_ms,
        peak_bytes=measured.peak_rss_bytes,
        percentiles_ms=summary.percentiles_ms,
        kinds={row.kind: row.share for row in measured.ops},
        verdict=measured.verdict.status,
        notes=measured.verdict.reasons,
    )


def _device(profile: Profile) -> str:
    about = [str(profile.target[key]) for key in ("cpu", "os") if profile.target.get(key)]
    return f"{profile.device}: {', '.join(about)}" if about else profile.device
