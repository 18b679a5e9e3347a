"""Which shape to measure next, and which to choose: the one of largest capacity within a latency budget.

Capacity is parameters times MACs. An untrained network has no quality; what is known is that among networks of one
architecture those with more MACs reach a better one (DiT, arXiv:2212.09748, figure 8), and that weights store what is
learned. Either alone has a degenerate optimum: MACs a wide network that never leaves the full resolution, parameters
one that is wide only where the image is 4x4 pixels. The Pareto set shows the alternatives.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgegen.recipe import Architecture
from edgegen.search.complexity import Complexity
from edgegen.search.latency_model import predicted_ms

BAND = 0.10  # a choice uses the budget up when its p50 is at most this fraction below it
GAIN = 1.05  # times the capacity of the choice: what another measurement has to promise
# Predicted latency over the budget: below 1, because half of the predictions are too low. Several proposals for one
# budget aim lower and lower: they inform the model more than neighbours do, and one of them may fit.
AIMS = (0.97, 0.94, 0.91)
HOPELESS = 1.15  # predicted latency over the budget, above which nothing is measured


@dataclass(frozen=True)
class ShapeLatency:
    """A measurement: p50 and the upper end of its 95 % interval, in ms; and peak memory, None where unknown."""

    p50_ms: float
    high_ms: float
    peak_rss_bytes: int | None = None

    def fits(self, budget_ms: float) -> bool:
        """By the upper end of the interval: measured again, a choice must be below the budget, too."""
        return self.high_ms <= budget_ms


@dataclass
class Search:
    """All shapes with their complexities; the measured ones and the failed ones, which are not measured again."""

    complexities: Mapping[Architecture, Complexity]
    latencies: dict[Architecture, ShapeLatency] = field(default_factory=dict)
    failed: set[Architecture] = field(default_factory=set)

    def capacity(self, shape: Architecture) -> int:
        return self.complexities[shape].parameters * self.complexities[shape].macs

    def largest(self) -> Architecture:
        return max(self.complexities, key=self.capacity)

    def choice(self, budget_ms: float) -> Architecture | None:
        """The measured shape of largest capacity among those that fit."""
        fitting = [shape for shape, latency in self.latencies.items() if latency.fits(budget_ms)]
        return max(fitting, key=self.capacity, default=None)

    def in_band(self, budget_ms: float) -> bool:
        """Whether the choice uses the budget up."""
        chosen = self.choice(budget_ms)
        return chosen is not None and self.latencies[chosen].p50_ms >= (1 - BAND) * budget_ms

    def proposals(self, budgets_ms: Sequence[float], count: int) -> list[Architecture]:
        """What to measure next, at most `count`, for the budgets in turn; empty: nothing promises to be better."""
        if len(self.latencies) < 2:
            return self._first()[:count]
        proposed: dict[Architecture, None] = {}
        in_turn = sorted(budgets_ms, key=self.in_band)  # first those that are not used up
        for aim, budget in itertools.product(AIMS, in_turn):
            shape = self._next(budget, aim, proposed) if len(proposed) < count else None
            proposed |= {} if shape is None else {shape: None}
        return list(proposed)

    def _first(self) -> list[Architecture]:
        """The smallest shape, and one in the middle: two measurements from which a model can be fitted."""
        left = sorted(self._left(), key=lambda shape: self.complexities[shape].macs)
        if not left:
            return []
        middle = (self.complexities[left[0]].macs * self.complexities[left[-1]].macs) ** 0.5
        between = min(left[1:], key=lambda shape: abs(self.complexities[shape].macs / middle - 1), default=left[0])
        return list(dict.fromkeys((left[0], between)))

    def _left(self) -> list[Architecture]:
        return [shape for shape in self.complexities if shape not in self.latencies and shape not in self.failed]

    def _next(self, budget_ms: float, aim: float, taken: Mapping[Architecture, None]) -> Architecture | None:
        """The shape of largest capacity predicted to fit; else, while the budget is not used up, the fastest."""
        chosen = self.choice(budget_ms)
        least = 0.0 if chosen is None else GAIN * self.capacity(chosen)
        left = [shape for shape in self._left() if self.capacity(shape) > least and shape not in taken]
        if not left:
            return None
        known = {self.complexities[shape]: latency.p50_ms for shape, latency in self.latencies.items()}
        predictions = predicted_ms(known, [self.complexities[shape] for shape in left], near_ms=budget_ms)
        fitting = [shape for shape, predicted in zip(left, predictions, strict=True) if predicted <= aim * budget_ms]
        if fitting:
            return max(fitting, key=self.capacity)
        hopeless = self.in_band(budget_ms) or predictions.min() > HOPELESS * budget_ms
        return None if hopeless else left[int(predictions.argmin())]


def pareto(
    complexities: Mapping[Architecture, Complexity], latencies: Mapping[Architecture, ShapeLatency]
) -> set[Architecture]:
    """The measured shapes that no other dominates in p50, memory, parameters and MACs."""

    def figures(shape: Architecture) -> tuple[float, ...]:
        latency, complexity = latencies[shape], complexities[shape]
        memory = () if latency.peak_rss_bytes is None else (latency.peak_rss_bytes,)
        return (latency.p50_ms, *memory, -complexity.parameters, -complexity.macs)

    def dominated(shape: Architecture) -> bool:
        own = figures(shape)
        others = (figures(other) for other in latencies if other != shape)
        return any(
            len(other) == len(own) and other != own and all(a <= b for a, b in zip(other, own, strict=True))
            for other in others
        )

    return {shape for shape in latencies if not dominated(shape)}
