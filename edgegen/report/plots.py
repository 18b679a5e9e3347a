"""The plots of the report: training curves, quality against steps, and size against latency against quality."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgegen.report.formats import nbytes, number, plural, worded
from edgegen.report.headline import quality_of
from edgegen.report.schema import Report
from edgegen.report.svg import DIM, label_marks, log_scale, svg
from edgegen.report.tables import EQUAL_DB, NETWORKS

COLOUR = {
    "teacher": "#00a005",
    "scheduler": "#00a009",
    "slimmed": "#00a006",
    "student": "#00a007",
    "finished": "#00a009",
    "best_of_4": "#00a009",
    "baseline": "#00a008",
    "onnx": "#00a007",
    "executorch": "#00a006",
    "coreml": "#00a008",
    "torch": "#00a005",
}
OTHER = "#00a009"
MARKER = {
    "teacher": "o",
    "scheduler": "x",
    "slimmed": "s",
    "student": "D",
    "finished": "*",
    "best_of_4": "P",
    "baseline": "^",
}
CURVE_POINTS = 150
LARGEST, SMALLEST, DIAMOND = 240.0, 12.0, 34.0  # square points
WIDE, PANEL = (4.4, 3.2), (2.6, 1.8)  # inches; the page scales them, 72 units an inch


@dataclass(frozen=True)
class Plot:
    """`svg` is markup of our own making; `aside` lists what could not be drawn, as plain text. `wide`: as the page."""

    title: str
    svg: str
    alt: str
    note: str = ""
    aside: tuple[str, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Point:
    """One mark of the size-latency-quality plot; `filled` marks are artifacts proven equal to PyTorch."""

    label: str
    p50_ms: float
    fd_local: float
    colour: str
    nbytes: int | None
    filled: bool

    def area(self, largest: int) -> float:
        """Square points of the mark: of a disc in proportion to the file, the largest of which has `largest` bytes."""
        return DIAMOND if self.nbytes is None else max(SMALLEST, LARGEST * self.nbytes / largest)


def curve_plots(curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[Plot]:
    """One small panel a stage: the loss over the steps, on a logarithmic axis; none without positive values."""
    plots: list[Plot] = []
    for name, points in curves.items():
        kept = [(step, loss) for step, loss in points if math.isfinite(loss) and loss > 0]
        if len(kept) >= 2:
            plots.append(_curve(name, kept, len(plots)))
    return plots


def quality_plot(report: Report) -> Plot | None:
    """fd_local against the number of steps; None where nothing is known."""
    series: dict[str, list[tuple[int, float, float]]] = {}
    for network in NETWORKS:
        table = (network in MARKER and getattr(report.quality, network)) or {}  # bicubic has no steps
        known = sorted((int(s), f.fd_local, f.sd or 0.0) for s, f in table.items() if f.fd_local is not None)
        if known:
            series[network] = known
    if not series:
        return None
    floor = quality_of(report, "floor", 0)
    level = None if floor is None else floor.fd_local

    def draw(axes: Any) -> None:
        for network, known in series.items():
            steps, values, deviations = (list(part) for part in zip(*known, strict=True))
            look = {"color": COLOUR[network], "marker": MARKER[network], "markersize": 5, "linewidth": 1.6}
            axes.errorbar(steps, values, yerr=deviations, label=network, capsize=2.5, elinewidth=1, **look)
        if level is not None:
            axes.axhline(level, color=DIM, linestyle=(0, (4, 3)), linewidth=1.1, label="real, held out")
        ticks = sorted({step for known in series.values() for step, _, _ in known})
        axes.set_xscale("log")
        log_scale(axes, "x", ticks, pad=1.25)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        everything = [value for known in series.values() for _, value, _ in known] + ([level] if level else [])
        log_scale(axes, "y", everything, pad=1.25)
        axes.set_xlabel("steps of the sampler")
        axes.set_ylabel("fd_local (lower is better)")
        handles, names = axes.get_legend_handles_labels()
        order = sorted(range(len(names)), key=lambda i: [*series, names[i]].index(names[i]))
        handles, names = [handles[i] for i in order], [names[i] for i in order]
        axes.legend(
            handles, names, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, columnspacing=1.2, handlelength=1.6
        )

    alt = "fd_local against the number of steps, for " + ", ".join(series)
    return Plot("Quality against steps", svg("quality", WIDE, draw), alt, "Bars: standard deviation over noise seeds.")


def pareto_plot(report: Report) -> Plot | None:
    """PSNR against the size of the weights, for growing sets of layers left float; None without a mixed file."""
    mixed = [row for row in report.refined if row.pareto]
    if not mixed:
        return None
    (row,) = mixed
    # All float is no rounding at all: its PSNR stands for "equal" and would flatten the rest.
    shown = [choice for choice in row.pareto if choice.psnr_db < EQUAL_DB]

    def draw(axes: Any) -> None:
        sizes, decibels = [choice.nbytes / 1e6 for choice in shown], [choice.psnr_db for choice in shown]
        axes.plot(sizes, decibels, color=COLOUR["student"], marker="o", markersize=4, linewidth=1.4)
        axes.set_xlabel("weights, MB")
        axes.set_ylabel("PSNR to the float student, dB")

    worst = sorted(row.layers, key=lambda layer: layer.psnr_db)[:5]
    alone = "; ".join(f"{layer.name} {number(layer.psnr_db)} dB, {layer.weights:,} weights" for layer in worst)
    ends = f"from {number(shown[0].psnr_db)} dB to {number(shown[-1].psnr_db)} dB" if shown else "no choice"
    note = f"Predicted from each layer rounded alone; the file itself is measured above. The worst alone: {alone}."
    return Plot("Which layers to leave float", svg("pareto", WIDE, draw), f"PSNR against size: {ends}", note)


def points(report: Report) -> tuple[list[Point], list[str]]:
    """The marks of the size-latency-quality plot, and a line for each thing that lacks one of its two coordinates."""
    shown, aside = [], []
    for timed in report.torch_latency:
        # What was timed as the student is what ships, whatever it is called in the table of quality.
        figure = quality_of(report, report.ships if timed.network == "student" else timed.network, timed.steps)
        quality = None if figure is None else figure.fd_local
        label = f"{timed.network}, {plural(timed.steps, 'step')}"
        lacking = _lacking(timed.latency.p50_ms, quality)
        if lacking:
            aside.append(f"{label} (PyTorch): {lacking}")
        elif timed.latency.p50_ms and quality is not None:
            shown.append(Point(label, timed.latency.p50_ms, quality, COLOUR["torch"], None, False))
    for row in report.artifacts:
        lacking = _lacking(row.latency.p50_ms, row.fd_local)
        if lacking:
            known = [f"fd_local {number(row.fd_local)}"] if row.fd_local is not None else []
            aside.append(f"{row.label}: {', '.join([lacking, *known, nbytes(row.nbytes)])}")
        elif row.latency.p50_ms and row.fd_local is not None:
            proven = row.parity.status == "ok"
            label = row.label if proven else f"{row.label} ({_doubt(row.parity.status)})"
            colour = COLOUR.get(row.backend, OTHER)
            shown.append(Point(label, row.latency.p50_ms, row.fd_local, colour, row.nbytes, proven))
    return shown, aside


def tradeoff_plot(report: Report) -> Plot | None:
    """Latency against quality; the area of a mark is the size of the file. None where there is nothing to draw."""
    shown, aside = points(report)
    if not shown:
        return None

    def draw(axes: Any) -> None:
        largest = max((point.nbytes for point in shown if point.nbytes), default=1)
        for point in shown:
            area = point.area(largest)
            look = {"marker": "D" if point.nbytes is None else "o", "linewidths": 1.3, "edgecolors": point.colour}
            if point.filled:
                axes.scatter(point.p50_ms, point.fd_local, s=area, facecolors=point.colour, alpha=0.55, **look)
            else:
                axes.scatter(point.p50_ms, point.fd_local, s=area, facecolors="none", **look)
        axes.set_xscale("log")
        log_scale(axes, "x", [point.p50_ms for point in shown], pad=2.2)
        values = [point.fd_local for point in shown]
        margin = 0.22 * ((max(values) - min(values)) or max(values) or 1.0)
        axes.set_ylim(max(0.0, min(values) - margin), max(values) + margin)
        axes.set_xlabel(worded("p50 of one image, ms", report.data.kind))
        axes.set_ylabel("fd_local (lower is better)")
        marks = [(p.p50_ms, p.fd_local, p.label, math.sqrt(p.area(largest) / math.pi)) for p in shown]
        label_marks(axes, marks)

    alt = "fd_local against latency: " + "; ".join(
        f"{point.label}: {number(point.p50_ms)} ms, fd_local {number(point.fd_local)}" for point in shown
    )
    return Plot("Size, latency and quality", svg("tradeoff", WIDE, draw), alt, TRADEOFF_NOTE, tuple(aside))


TRADEOFF_NOTE = (
    "Lower and further left is better. A disc is a file and its area the file's size, hollow if it was not proven "
    "equal to PyTorch; a diamond is a net in PyTorch."
)


def _lacking(p50_ms: float | None, fd_local: float | None) -> str:
    missing = [name for name, value in (("latency", p50_ms), ("fd_local", fd_local)) if value is None]
    return f"{' and '.join(missing)} not known" if missing else ""


def _doubt(status: str) -> str:
    return "parity failed" if status == "failed" else status


def _curve(name: str, kept: list[tuple[int, float]], index: int) -> Plot:
    # Medians of neighbours: a thousand noisy points say less in a panel of this size.
    parts = np.array_split(np.array(kept, dtype=np.float64), min(CURVE_POINTS, len(kept)))
    steps, losses = np.array([np.median(part, axis=0) for part in parts]).T

    def draw(axes: Any) -> None:
        axes.plot(steps, losses, color=COLOUR["student"], linewidth=1.2)
        axes.set_yscale("log")
        log_scale(axes, "y", losses, pad=1.15)
        axes.locator_params(axis="x", nbins=4)

    alt = f"loss of {name}: from {number(kept[0][1])} to {number(kept[-1][1])} in {kept[-1][0]:,} steps"
    return Plot(name, svg(f"curve{index}", PANEL, draw), alt)
