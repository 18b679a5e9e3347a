"""How the warm runs are spread: one row a file, the share of its runs against their time on one logarithmic axis."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgegen.report.formats import number
from edgegen.report.plots import COLOUR, OTHER, Plot
from edgegen.report.svg import CARD, DIM, INK, log_scale, svg

WIDTH, ROW, AXIS = 9.6, 0.62, 0.62  # inches: of the figure, of one row, of the axis below
RISE = 0.78  # of a row, that 100 % take
LABEL, LINES = 34, 2  # characters and lines of a row's name
NOTE = (
    "Each row rises from none to all of a file's warm runs: steep is steady, a long foot to the right is a slow tail. "
    "The diamond is the median, the bar through it its 95 % interval. Hollow and dashed rows are not to be believed."
)


@dataclass(frozen=True)
class Spread:
    """One row: `percentiles_ms` from 0 to 100 %; `doubt` says why its times should not be believed, "" for nothing."""

    label: str
    percentiles_ms: tuple[float, ...]
    p50_ms: float
    p50_ci95_ms: tuple[float, float] | None
    kind: str
    doubt: str = ""

    @property
    def median(self) -> str:
        """The median with its interval, and the doubt: 0.604 ms (0.598 to 0.612), noisy."""
        interval = ""
        if self.p50_ci95_ms is not None:
            interval = " ({} to {})".format(*map(number, self.p50_ci95_ms))
        return f"{number(self.p50_ms)} ms{interval}{self.doubt and ', ' + self.doubt}"


def distribution_plot(name: str, rows: Sequence[Spread]) -> Plot | None:
    """The rows from top to bottom; None where there is none."""
    if not rows:
        return None

    def draw(axes: Any) -> None:
        for index, row in enumerate(rows):
            _draw(axes, row, foot=len(rows) - 1 - index)
        values = [value for row in rows for value in row.percentiles_ms if value > 0]
        axes.set_xscale("log")
        log_scale(axes, "x", values, pad=1.08)
        axes.set_ylim(-0.12, len(rows) - 0.05)
        names = ["\n".join([*_lines(row.label), row.median]) for row in rows]
        axes.set_yticks([len(rows) - 1 - index + RISE / 2 for index in range(len(rows))], names, fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel("one inference, ms")

    alt = "The spread of the warm runs. " + "; ".join(
        f"{row.label}: median {row.median}, nine tenths within {number(row.percentiles_ms[90])} ms, "
        f"all within {number(row.percentiles_ms[100])} ms"
        for row in rows
    )
    size = (WIDTH, AXIS + ROW * len(rows))
    return Plot("How the runs are spread", svg(name, size, draw), alt, NOTE, wide=True)


def _lines(label: str) -> list[str]:
    return textwrap.wrap(label, LABEL, max_lines=LINES, placeholder=" …")


def _draw(axes: Any, row: Spread, *, foot: float) -> None:
    colour = COLOUR.get(row.kind, OTHER)
    times, heights = np.array(row.percentiles_ms), foot + RISE * np.linspace(0.0, 1.0, len(row.percentiles_ms))
    axes.axhline(foot, color=DIM, linewidth=0.5, alpha=0.6)
    if not row.doubt:
        axes.fill_between(times, foot, heights, step="post", color=colour, alpha=0.3, linewidth=0)
    style = {"linestyle": (0, (3, 2))} if row.doubt else {}
    axes.step(times, heights, where="post", color=colour, linewidth=1.4, **style)
    middle = foot + RISE / 2
    if row.p50_ci95_ms is not None:
        axes.plot(row.p50_ci95_ms, [middle, middle], color=INK, linewidth=2.4, solid_capstyle="butt")
    axes.plot([row.p50_ms], [middle], marker="D", markersize=6, color=INK, markeredgecolor=CARD, markeredgewidth=0.8)
