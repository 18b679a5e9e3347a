"""Plots as inline SVG: text stays text, and colours are the page's CSS variables, so that dark mode reaches them."""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgegen.extras import require

# Colours that mean nothing but their CSS variable: replaced in the finished SVG.
VARIABLES = {
    "#00a001": "--ink",
    "#00a002": "--dim",
    "#00a003": "--line",
    "#00a004": "--card",
    "#00a005": "--c-teacher",
    "#00a006": "--c-reflowed",
    "#00a007": "--c-student",
    "#00a008": "--c-baseline",
    "#00a009": "--c-other",
}
INK, DIM, LINE, CARD, *_ = VARIABLES


def log_scale(axes: Any, which: str, values: Any, *, pad: float) -> None:
    """A logarithmic axis around the values, with ticks such as 20, 50, 100; linear where a value is not positive."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = float(min(values)), float(max(values))
    if low <= 0:
        return
    axis = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}scale")("log")
    pad = max(pad, math.sqrt(3.0 * low / high))  # at least a factor of three, or no tick may fall inside
    getattr(axes, f"set_{which}lim")(low / pad, high * pad)
    decades = math.log10(high * pad**2 / low)
    subs = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0, 3.0) if decades < 3.2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Mark:
    """A mark at (x, y) in the data's units with `radius` points, and its label."""

    x: float
    y: float
    text: str
    radius: float


def place_labels(axes: Any, marks: Sequence[Mark]) -> None:
    """Each label beside its mark: of some places, the one where it covers least; a line joins those that are far."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # the layout moves the axes: not after the places are chosen
    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    taken = []
    for mark, (x, y) in zip(marks, axes.transData.transform([(mark.x, mark.y) for mark in marks]), strict=True):
        taken.append(Bbox.from_extents(x - mark.radius, y - mark.radius, x + mark.radius, y + mark.radius))
    for mark in sorted(marks, key=lambda mark: mark.y):
        line = {"arrowstyle": "-", "color": LINE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": mark.radius}
        label = axes.annotate(
            mark.text, (mark.x, mark.y), (0, 0), textcoords="offset points", va="center", arrowprops=line
        )
        label.set_in_layout(False)

        def cost(place: tuple[float, float, str], label: Any = label, radius: float = mark.radius) -> float:
            dx, dy, _ = place
            box = _put(label, place, radius)
            outside = max(0.0, frame.x0 - box.x0, box.x1 - frame.x1) + max(0.0, frame.y0 - box.y0, box.y1 - frame.y1)
            covered = sum(_overlap(box, other) for other in taken)
            return float(covered + 50.0 * outside + 0.01 * (dx * dx + dy * dy))

        best = min(PLACES, key=cost)
        taken.append(_put(label, best, mark.radius))
        label.arrow_patch.set_visible(math.hypot(best[0], best[1]) > FAR)


def _put(label: Any, place: tuple[float, float, str], radius: float) -> Any:
    """Moves the label to a place beside a mark of that radius; the box of the text alone, without its line."""
    from matplotlib.text import Text

    dx, dy, side = place
    reach = math.hypot(dx, dy)
    label.set(position=(dx * (1 + radius / reach), dy * (1 + radius / reach)), horizontalalignment=side)
    label.update_positions(label.figure.canvas.get_renderer())
    return Text.get_window_extent(label)


AIR = 4.0  # points that labels keep between them
FAR = 12.0  # points between mark and label from which a line joins them
PLACES = [
    (dx * grow, dy * grow, side)
    for grow in (1.0, 2.5, 4.0, 6.0)
    for dx, dy, side in (
        (5, 0, "left"),
        (-5, 0, "right"),
        (4, 7, "left"),
        (4, -7, "left"),
        (-4, 7, "right"),
        (-4, -7, "right"),
        (0, 9, "center"),
        (0, -9, "center"),
    )
]  # points from the edge of the mark


def _overlap(a: Any, b: Any) -> float:
    """Area that two boxes share, each a little larger than it is."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0) + AIR
    height = min(a.y1, b.y1) - max(a.y0, b.y0) + AIR
    return max(0.0, float(width)) * max(0.0, float(height))


def svg(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """A figure as inline SVG: no size of its own, no metadata, no address, ids that begin with `name`."""
    require("report", purpose="the plots of the report")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "edgegen", "font.size": 9, "text.color": INK}
    style |= {"axes.edgecolor": LINE, "axes.labelcolor": DIM, "axes.facecolor": "none", "legend.frameon": False}
    style |= {"xtick.color": LINE, "ytick.color": LINE, "xtick.labelcolor": DIM, "ytick.labelcolor": DIM}
    style |= {"grid.color": LINE, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.linewidth": 0.8}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, dpi=72, layout="constrained", facecolor="none")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), name)


def _inline(text: str, name: str) -> str:
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = _bare(svg).replace("xlink:href=", "href=")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()


def _bare(svg: str) -> str:
    """The opening tag with its viewBox only: the page gives the size, and HTML knows the namespaces."""
    end = svg.index(">")
    box = re.search(r'viewBox="[^"]*"', svg[:end])
    assert box is not None, "matplotlib writes a viewBox"
    return f'<svg {box[0]} aria-hidden="true"{svg[end:]}'
