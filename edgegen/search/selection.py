"""Which shape to measure next, and which to choose: under a budget of latency the one of most capacity.

Capacity is parameters times multiplications. Nothing untrained has a quality; what is known is that of nets of one form
those that compute more come out better (DiT, arXiv:2212.09748, figure 8), and that weights hold what is learned. Each
alone can be cheated: multiplications by a wide net that never leaves the full resolution, parameters by one that is
wide only where the picture is 4x4 pixels. The Pareto set shows what else there is.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgegen.recipe import Architecture
from edgegen.search.complexity import Work
from edgegen.search.latency_model import predicted_ms

BAND = 0.10  # a choice is as good as the budget allows when its p50 is within this share below it
GAIN = 1.05  # more capacity than this, to be worth another measurement
# Of the budget: where guesses are aimed at, because half of them come out above. Several for one budget aim lower and
# lower: they tell more than neighbours do, and one of them may fit.
AIMS = (0.97, 0.94, 0.91)
HOPELESS = 1.15  # of the budget: guesses above are not measured


@dataclass(frozen=True)
class Time:
    """What was measured: p50 and the upper end of its 95 % interval, in ms; and the most memory, None unknown."""

    p50_ms: float
    high_ms: float
    peak_rss_bytes: int | None = None

    def fits(self, budget_ms: float) -> bool:
        """Surely, not just by its middle: what is chosen for being just below must be below when measured again."""
        return self.high_ms <= budget_ms


@dataclass
class Search:
    """The shapes with their work, what is known of them, and which failed: neither is measured again."""

    works: Mapping[Architecture, Work]
    times: dict[Architecture, Time] = field(default_factory=dict)
    failed: set[Architecture] = field(default_factory=set)

    def capacity(self, shape: Architecture) -> int:
        return self.works[shape].parameters * self.works[shape].macs

    def largest(self) -> Architecture:
        return max(self.works, key=self.capacity)

    def choice(self, budget_ms: float) -> Architecture | None:
        """The measured shape of most capacity among those that fit."""
        fitting = [shape for shape, time in self.times.items() if time.fits(budget_ms)]
        return max(fitting, key=self.capacity, default=None)

    def in_band(self, budget_ms: float) -> bool:
        """Whether the choice uses the budget up."""
        chosen = self.choice(budget_ms)
        return chosen is not None and self.times[chosen].p50_ms >= (1 - BAND) * budget_ms

    def proposals(self, budgets_ms: Sequence[float], count: int) -> list[Architecture]:
        """What to measure next, at most `count`, for the budgets in turn; none: nothing that looks better is left."""
        if len(self.times) < 2:
            return self._first()[:count]
        found: dict[Architecture, None] = {}
        in_turn = sorted(budgets_ms, key=self.in_band)  # first those that are not used up
        for aim, budget in itertools.product(AIMS, in_turn):
            shape = self._next(budget, aim, found) if len(found) < count else None
            found |= {} if shape is None else {shape: None}
        return list(found)

    def _first(self) -> list[Architecture]:
        """The smallest shape, and one in the middle: from there on the budgets say where to look."""
        left = sorted(self._left(), key=lambda shape: self.works[shape].macs)
        if not left:
            return []
        middle = (self.works[left[0]].macs * self.works[left[-1]].macs) ** 0.5
        between = min(left[1:], key=lambda shape: abs(self.works[shape].macs / middle - 1), default=left[0])
        return list(dict.fromkeys((left[0], between)))

    def _left(self) -> list[Architecture]:
        return [shape for shape in self.works if shape not in self.times and shape not in self.failed]

    def _next(self, budget_ms: float, aim: float, taken: Mapping[Architecture, None]) -> Architecture | None:
        """The shape of most capacity that should fit; while nothing meets the band, else the nearest above."""
        chosen = self.choice(budget_ms)
        least = 0.0 if chosen is None else GAIN * self.capacity(chosen)
        left = [shape for shape in self._left() if self.capacity(shape) > least and shape not in taken]
        if not left:
            return None
        known = {self.works[shape]: time.p50_ms for shape, time in self.times.items()}
        times = predicted_ms(known, [self.works[shape] for shape in left], near_ms=budget_ms)
        fitting = [shape for shape, guess in zip(left, times, strict=True) if guess <= aim * budget_ms]
        if fitting:
            return max(fitting, key=self.capacity)
        hopeless = self.in_band(budget_ms) or times.min() > HOPELESS * budget_ms
        return None if hopeless else left[int(times.argmin())]


def pareto(works: Mapping[Architecture, Work], times: Mapping[Architecture, Time]) -> set[Architecture]:
    """The measured shapes that no other beats: none is as good in time, memory, parameters and multiplications."""

    def figures(shape: Architecture) -> tuple[float, ...]:
        time, work = times[shape], works[shape]
        memory = () if time.peak_rss_bytes is None else (time.peak_rss_bytes,)
        return (time.p50_ms, *memory, -work.parameters, -work.macs)

    def beaten(shape: Architecture) -> bool:
        own = figures(shape)
        others = (figures(other) for other in times if other != shape)
        return any(
            len(one) == len(own) and one != own and all(a <= b for a, b in zip(one, own, strict=True)) for one in others
        )

    return {shape for shape in times if not beaten(shape)}
