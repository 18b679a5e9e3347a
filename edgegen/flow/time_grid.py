"""The times of a solver's steps: even, or those that a network brings from the sampler that it was made for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TimeGrid:
    """Falling times on the straight path, one more than steps, in float64.

    A sampler that starts at a time below 1 starts from a point with some noise less: `start_gain` times the noise.
    One that ends above 0 gives `end_gain` times the point there.
    """

    times: tuple[float, ...]
    start_gain: float = 1.0
    end_gain: float = 1.0

    @property
    def steps(self) -> int:
        return len(self.times) - 1


def even_grid(steps: int) -> TimeGrid:
    """From 1 to 0 in steps of one length."""
    return TimeGrid(tuple(torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()))


def grid_of(velocity: object, steps: int) -> TimeGrid:
    """The network's own times, from its method `time_grid(steps)`, or even ones."""
    own: Callable[[int], TimeGrid] | None = getattr(velocity, "time_grid", None)
    return even_grid(steps) if own is None else own(steps)
