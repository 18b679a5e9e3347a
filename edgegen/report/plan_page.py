"""plan.html: the shapes that a search measured, as two plots and a table, in one file that opens offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgegen.report import environment, formats
from edgegen.report.svg import CARD, DIM, label_marks, log_scale, svg
from edgegen.support.extras import require

BLUE, ORANGE, GREY = "#00a007", "#00a006", "#00a005"  # --c-student, --c-slimmed, --c-teacher
SIZE = (5.2, 3.6)  # inches
RADIUS = 5.0  # points, of a chosen shape's mark


@dataclass(frozen=True)
class ShapeRow:
    """One shape; without a latency it is in the table only. `budgets_ms` are those that it was chosen for."""

    label: str
    p50_ms: float | None
    p50_ci95_ms: tuple[float, float] | None
    parameters: int
    macs: int
    peak_rss_bytes: int | None
    nbytes: int | None
    verdict: Literal["ok", "noisy", "failed"]
    reasons: tuple[str, ...]
    pareto: bool
    budgets_ms: tuple[float, ...]


def render(
    name: str, lead: str, marks: Sequence[ShapeRow], *, budgets_ms: Sequence[float], notes: Sequence[str]
) -> str:
    """The page. Raises MissingExtraError."""
    require("report", purpose="the page of a plan")
    plots = [_plot(figure, marks, budgets_ms) for figure in ("parameters", "macs")]
    text: str = (
        environment.make(html=True)
        .get_template("plan.html.jinja")
        .render(name=name, lead=lead, marks=marks, plots=plots, notes=notes, formats=formats)
    )
    return text


def _plot(
    figure: Literal["parameters", "macs"], marks: Sequence[ShapeRow], budgets_ms: Sequence[float]
) -> dict[str, str]:
    """p50 against parameters or multiplications. Form and fill say what a mark is; colour only says it again."""
    shown = [mark for mark in marks if mark.p50_ms is not None]
    title = {"parameters": "Parameters", "macs": "Multiplications"}[figure]

    def draw(axes: Any) -> None:
        for budget in budgets_ms:
            axes.axvline(budget, color=DIM, linestyle=(0, (4, 3)), linewidth=1.0, zorder=0.8)
        for mark in shown:
            axes.plot(mark.p50_ms, getattr(mark, figure) / 1e6, **_look(mark), linestyle="none")
        axes.set_xscale("log")
        axes.set_yscale("log")
        log_scale(axes, "x", [*(mark.p50_ms for mark in shown), *budgets_ms], pad=1.3)
        log_scale(axes, "y", [getattr(mark, figure) / 1e6 for mark in shown], pad=1.6)
        axes.set_xlabel("p50 of one image, ms")
        axes.set_ylabel(f"{title.lower()}, millions")
        chosen = [mark for mark in shown if mark.budgets_ms]
        texts = [f"{', '.join(f'{budget:g} ms' for budget in mark.budgets_ms)}: {mark.label}" for mark in chosen]
        places = [(mark.p50_ms or 0.0, getattr(mark, figure) / 1e6) for mark in chosen]
        label_marks(axes, [(x, y, text, RADIUS) for (x, y), text in zip(places, texts, strict=True)])

    chosen = "; ".join(
        f"{', '.join(f'{budget:g} ms' for budget in mark.budgets_ms)}: {mark.label} at {formats.number(mark.p50_ms)} ms"
        for mark in shown
        if mark.budgets_ms
    )
    alt = f"{title} against p50 of {formats.plural(len(shown), 'shape')}. Chosen for {chosen or 'no budget'}."
    return {"title": f"{title} against latency", "svg": svg(figure, SIZE, draw), "alt": alt}


def _look(mark: ShapeRow) -> dict[str, Any]:
    noisy = {"fillstyle": "none"} if mark.verdict == "noisy" else {}
    if mark.budgets_ms:
        return {"marker": "D", "markersize": 8, "color": ORANGE, "zorder": 3, **noisy}
    if mark.pareto:
        return {"marker": "o", "markersize": 6, "color": BLUE, "zorder": 2, **noisy}
    return {"marker": "s", "markersize": 4, "color": GREY, "markeredgecolor": CARD if not noisy else GREY, **noisy}
