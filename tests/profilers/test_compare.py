"""What became slower: a planted difference is detected, none is reported where there is none, and what is refused."""

import numpy as np
import pytest
from measured import profile, result
from numpy.typing import NDArray

from edgegen.errors import UsageError
from edgegen.profilers.compare import Difference, Limit, Metric, difference, differences

LIMITS = Limit.parse("p50>+5%")


def samples(seed: int, *, slower: float = 1.0) -> NDArray[np.float64]:
    """40 blocks of 8 runs around 10 ms: each block off by 2 %, each run by another 3 %, a tail to the right."""
    rng = np.random.default_rng(seed)
    blocks = 10.0 * rng.normal(1.0, 0.02, (40, 1)) * rng.normal(1.0, 0.03, (40, 8))
    return slower * blocks + rng.exponential(0.3, (40, 8))


def test_ten_percent_are_found_and_nothing_where_nothing_is() -> None:
    """20 tries each, as the issue asks of real runs (examples/bench_profile.py)."""
    for seed in range(20):
        before = result(samples(2 * seed))
        slow = difference("a", before, result(samples(2 * seed + 1, slower=1.1)))
        same = difference("a", before, result(samples(2 * seed + 1)))
        assert slow.broken(LIMITS)
        assert not same.broken(LIMITS)
        assert slow.surely == "slower"
        assert same.surely == "no difference"


def test_a_rise_that_may_lie_within_the_limit_is_none() -> None:
    changes: dict[Metric, float | None] = {"p50": 0.06, "p90": None, "load": None, "first": None, "memory": None}
    assert not Difference("a", 1.0, 1.06, (0.03, 0.09), changes, ()).broken(LIMITS)
    assert Difference("a", 1.0, 1.06, (0.051, 0.07), changes, ()).broken(LIMITS)
    assert not Difference("a", 1.0, 1.0, (0.0, 0.0), changes, ()).broken(Limit.parse("p90>+5%")), "not known"


def test_the_other_figures_have_limits_too() -> None:
    before, blocks = samples(0), samples(0)
    after = result(blocks, peak_rss_bytes=1200, cold=[{"load_ms": 1.4, "first_ms": 2.0}])
    change = difference("a", result(before), after)
    assert change.broken(Limit.parse("p50>+5%, p90>+5%, first>+1%")) == []
    assert change.broken(Limit.parse("load>+50%,memory>+30%")) == []
    assert change.broken(Limit.parse("load>+10%,memory>+10%")) == [
        "a: load +40.0%, allowed +10%",
        "a: memory +20.0%, allowed +10%",
    ]


def test_noise_is_handed_on() -> None:
    verdict = {"status": "noisy", "reasons": ["other programs used 0.97 cores"]}
    change = difference("a", result(samples(0)), result(samples(1), verdict=verdict))
    assert change.noisy == ("other programs used 0.97 cores",)


def test_a_reason_of_a_sound_measurement_is_no_interference() -> None:
    """Fewer threads than asked for are reported with the verdict "ok": such a measurement can be judged."""
    verdict = {"status": "ok", "reasons": ["2 threads were asked, 1 ran: its runtime has no more"]}
    fewer = result(samples(0), verdict=verdict)
    assert difference("a", fewer, result(samples(1), verdict=verdict)).noisy == ()


@pytest.mark.parametrize("text", ["", "p50", "p50>5%", "p50>+5", "p51>+5%", "p50>+5%,"])
def test_limits_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read; give p50>"):
        Limit.parse(text)


def test_files_that_only_one_has_are_not_compared() -> None:
    one = profile(result(samples(0)))
    config = {"runtime": "t", "threads_requested": 2, "threads_actual": 2}
    other = profile(result(samples(0), config=config))
    with pytest.raises(UsageError, match=r"nothing to compare: one has net\.pte, 1 thread, the other net\.pte, 2"):
        differences(one, other)
    assert [change.label for change in differences(one, one)] == ["net.pte, 1 thread"]
