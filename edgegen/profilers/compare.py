"""Two measurements beside each other: what became slower, and how surely."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgegen.errors import UsageError
from edgegen.profilers.schema import MeasuredFile, Profile
from edgegen.profilers.timing.protocol import PRECISION
from edgegen.profilers.timing.stats import ratio_interval
from edgegen.support.numbers import number

FORM = "p50>+5% (also p90, load, first, memory), separated by commas"
Metric = Literal["p50", "p90", "load", "first", "memory"]
MOST_PERCENT = 1e6
METRICS: tuple[Metric, ...] = ("p50", "p90", "load", "first", "memory")


@dataclass(frozen=True)
class Limit:
    """`metric` may rise by `rise`, a share."""

    metric: Metric
    rise: float

    @staticmethod
    def parse(text: str) -> "tuple[Limit, ...]":
        """ "p50>+5%,memory>+10%": what a comparison shall fail on. Raises UsageError for what it cannot read."""
        limits = []
        for part in text.split(","):
            matched = re.fullmatch(r"(\w+)\s*>\s*\+\s*(\d+(?:\.\d+)?)\s*%", part.strip())
            percent = None if matched is None else number(matched[2], most=MOST_PERCENT)
            if matched is None or matched[1] not in METRICS or percent is None:
                raise UsageError(f"--fail-on '{part.strip()}' cannot be read; give {FORM}")
            limits.append(Limit(matched[1], percent / 100))
        return tuple(limits)


@dataclass(frozen=True)
class Difference:
    """One file under one configuration, in two measurements. Changes are shares of before; None is not known.

    `interval` is that of p50's change, 95 %; `noisy` says why one of the two should not be believed.
    """

    label: str
    before_ms: float
    after_ms: float
    interval: tuple[float, float]
    changes: dict[Metric, float | None]
    noisy: tuple[str, ...]

    @property
    def surely(self) -> str:
        """In words, what the interval of p50 shows: a median is known to PRECISION only."""
        low, high = self.interval
        return "slower" if low > PRECISION else "faster" if high < -PRECISION else "no difference"

    def broken(self, limits: Sequence[Limit]) -> list[str]:
        """The limits that are exceeded; of p50 only where the whole interval lies beyond."""
        exceeded = []
        for limit in limits:
            change = self.interval[0] if limit.metric == "p50" else self.changes[limit.metric]
            if change is not None and change > limit.rise:
                shown = self.changes[limit.metric]
                exceeded.append(f"{self.label}: {limit.metric} {shown:+.1%}, allowed +{limit.rise:.0%}")
        return exceeded


def differences(before: Profile, after: Profile) -> list[Difference]:
    """The files that both measured with equal threads, by their names. Raises UsageError where there is none."""
    first, second = _by_label(before), _by_label(after)
    common = [label for label in first if label in second]
    if not common:
        names = [", ".join(files) or "no latency" for files in (first, second)]
        raise UsageError(f"nothing to compare: one has {names[0]}, the other {names[1]}")
    return [difference(label, first[label], second[label]) for label in common]


def difference(label: str, before: MeasuredFile, after: MeasuredFile) -> Difference:
    """How `after` differs from `before`; both have latencies."""
    assert before.latency is not None, "measured"
    assert after.latency is not None, "measured"
    old, new = ([np.array(block) for block in latency.blocks_ms] for latency in (before.latency, after.latency))
    low, high = ratio_interval(old, new)
    changes: dict[Metric, float | None] = {
        "p50": after.latency.p50_ms / before.latency.p50_ms - 1,
        "p90": after.latency.p90_ms / before.latency.p90_ms - 1,
        "load": _change([cold.load_ms for cold in before.cold], [cold.load_ms for cold in after.cold]),
        "first": _change([cold.first_ms for cold in before.cold], [cold.first_ms for cold in after.cold]),
        "memory": _change(
            [before.peak_rss_bytes] if before.peak_rss_bytes else [],
            [after.peak_rss_bytes] if after.peak_rss_bytes else [],
        ),
    }
    doubtful = [measured.verdict for measured in (before, after) if measured.verdict.status == "noisy"]
    noisy = tuple(reason for verdict in doubtful for reason in verdict.reasons)
    return Difference(label, before.latency.p50_ms, after.latency.p50_ms, (low - 1, high - 1), changes, noisy)


def _change(before: Sequence[float], after: Sequence[float]) -> float | None:
    return float(np.median(after) / np.median(before) - 1) if before and after else None


def _by_label(profile: Profile) -> dict[str, MeasuredFile]:
    return {measured.label: measured for measured in profile.results if measured.latency is not None}
