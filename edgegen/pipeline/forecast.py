"""What is left of a run: the expected seconds of its stages, corrected by how long the finished ones took."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

ENOUGH_S = 5.0  # of finished stages that were expected, before they correct the others


@dataclass(frozen=True)
class StageTime:
    """The seconds that a stage will take, None where that is not known; `how` says what they come from, or why not."""

    seconds: float | None
    how: str


class Forecast:
    """`times` are by stage; `took` tells how long one really took."""

    def __init__(self, times: Mapping[str, StageTime]) -> None:
        self.times = times
        self._expected_s = self._real_s = 0.0

    def took(self, stage: str, seconds: float) -> None:
        expected = self.times[stage].seconds if stage in self.times else None
        if expected is not None:
            self._expected_s, self._real_s = self._expected_s + expected, self._real_s + seconds

    def left(self, stages: Collection[str]) -> str:
        """Of these stages in words: "about 6 min", and which of them are not in it."""
        factor = self._real_s / self._expected_s if self._expected_s > ENOUGH_S else 1.0
        return total({stage: self.times[stage] for stage in stages if stage in self.times}, factor=factor)


def total(times: Mapping[str, StageTime], *, factor: float = 1.0) -> str:
    """The sum in words, and which stages are not in it."""
    seconds = sum(stage_time.seconds or 0.0 for stage_time in times.values()) * factor
    unknown = [stage for stage, stage_time in times.items() if stage_time.seconds is None]
    if len(unknown) == len(times):
        return "an unknown time"
    return f"about {duration(seconds)}" + (f" and {', '.join(unknown)}, of unknown length" if unknown else "")


def duration(seconds: float) -> str:
    """40 s, 6 min, 2 h 10 min: no more precise than an estimate is."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def sampling(image_s: float, evaluations: int) -> StageTime:
    """`evaluations` of one image each, in large batches."""
    return StageTime(image_s * evaluations, f"measured: {in_ms(image_s)} an image and evaluation")


def by_file(seconds: float, files: int) -> StageTime:
    return StageTime(seconds * files, f"as in the demo: {seconds:g} s a file, of a small network")


def in_ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
