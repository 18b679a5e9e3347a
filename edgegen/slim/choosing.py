"""Which shape to measure next, and which to choose: under a budget of latency the one of most capacity.

Capacity is parameters times multiplications. Nothing untrained has a quality; what is known is that, of two nets of one
form, the one with more weights and more computing per image learns more (the scaling laws of diffusion models: DiT,
arXiv:2212.09748, figure 8; arXiv:2404.02883, section 3). Each alone can be cheated: multiplications by a wide net that
never leaves the full resolution, parameters by one that is wide where the picture is 4x4 pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgegen.recipe import Architecture
from edgegen.slim.cost import predicted_ms
from edgegen.slim.work import Work

BAND = 0.10  # a choice is as good as the budget allows when its p50 is within this share below it
GAIN = 1.05  # more capacity than this, to be worth another measurement
AIM = 0.97  # of the budget: where a guess is aimed at, because half of them come out above
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

    def proposals(self, budgets_ms: Sequence[float], count: int) -> list[Architecture]:
        """What to measure next, at most `count`, for the budgets in turn; none: nothing that looks better is left."""
        found: dict[Architecture, None] = dict.fromkeys(self._first()[:count])
        aim = AIM
        while not found or len(found) < count:
            # Several for one budget aim lower and lower: they tell more than neighbours do, and one of them may fit.
            further = [self._next(budget, aim, found) for budget in budgets_ms] if len(self.times) >= 2 else []
            new = [shape for shape in further if shape is not None]
            if not new:
                break
            found |= dict.fromkeys(new)
            aim -= 1 - AIM
        return list(found)[:count]

    def _first(self) -> list[Architecture]:
        """The smallest shape, and one in the middle: from there on the budgets say where to look."""
        if len(self.times) >= 2:
            return []
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
        known = {self.works[shape]: time.p50_ms for shape, time in self.times.items()}
        guesses = dict(zip(left, self._guessed(known, left, budget_ms), strict=True))
        fitting = [shape for shape, guess in guesses.items() if guess <= aim * budget_ms]
        if fitting:
            return max(fitting, key=self.capacity)
        if chosen is not None and self.times[chosen].p50_ms >= (1 - BAND) * budget_ms:
            return None
        nearest = min(guesses, key=lambda shape: guesses[shape], default=None)
        return nearest if nearest is not None and guesses[nearest] <= HOPELESS * budget_ms else None

    def _guessed(self, known: Mapping[Work, float], left: Sequence[Architecture], budget_ms: float) -> list[float]:
        return [] if not left else predicted_ms(known, [self.works[one] for one in left], near_ms=budget_ms).tolist()


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
