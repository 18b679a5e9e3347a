"""Plots as inline SVG: text stays text, and colours are the page's CSS variables, so that dark mode reaches them."""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from edgegen.report.labels import Box, Disc, place
from edgegen.support.extras import require

# Colours that mean nothing but their CSS variable: replaced in the finished SVG.
VARIABLES = {
    "#00a001": "--ink",
    "#00a002": "--dim",
    "#00a003": "--line",
    "#00a004": "--card",
    "#00a005": "--c-teacher",
    "#00a006": "--c-slimmed",
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


def label_marks(axes: Any, marks: Sequence[tuple[float, float, str, float]]) -> None:
    """Writes the text of each (x, y, text, radius in points) beside its mark; a line joins those that are far."""
    figure = axes.figure
    figure.draw_without_rendering()  # the layout moves the axes: not after the places are chosen
    renderer = figure.canvas.get_renderer()
    at = axes.transData.transform([(x, y) for x, y, _, _ in marks])
    texts = [axes.text(0, 0, text, transform=None, va="center", ha="center") for _, _, text, _ in marks]
    sized = []
    for text, (x, y), (_, _, _, radius) in zip(texts, at, marks, strict=True):
        text.set_in_layout(False)
        extent = text.get_window_extent(renderer)
        sized.append(Disc(x, y, radius, extent.width, extent.height))
    frame = axes.get_window_extent(renderer)
    places = place(sized, Box(frame.x0, frame.y0, frame.x1, frame.y1))
    for text, mark, (box, joined) in zip(texts, sized, places, strict=True):
        text.set_position(box.middle)
        if joined:
            x, y = box.nearest(mark)
            axes.plot(
                [mark.x, x],
                [mark.y, y],
                transform=None,
                color=DIM,
                linewidth=0.6,
                zorder=0.5,
                scalex=False,
                scaley=False,
            )


def svg(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """A figure as inline SVG: no size of its own, no metadata, no address, ids that begin with `name`."""
    require("report", purpose="the plots of the report")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "edgegen", "font.size": 10, "text.color": INK}
    style |= {"text.parse_math": False}  # a $ in a name is a $
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
