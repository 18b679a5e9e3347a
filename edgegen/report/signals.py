"""Signals as small line plots: one strip a channel, all of them on one scale."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

WIDTH, STRIP = 150, 44  # of one strip, in SVG's units
MOST_CHANNELS = 6
COLOURS = ("#3f86c9", "#d07a2d", "#4a9e5f", "#a463b8", "#b5544f", "#7d8590")  # by channel; on light and dark
AXIS = "#80808055"
MARGIN = 8  # between plots of a sheet


def signal_svg(signal: NDArray[np.float32]) -> str:
    """A picture of a signal (channels, length) in [-1, 1]: its first channels below each other; what is beyond is cut.

    It has no size of its own, and is drawn as large as its place.
    """
    height = STRIP * min(len(signal), MOST_CHANNELS)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">{_strips(signal)}</svg>'


def signal_sheet(signals: NDArray[np.float32], *, columns: int = 4) -> str:
    """Signals (n, channels, length) side by side in one picture."""
    height = STRIP * min(signals.shape[1], MOST_CHANNELS)
    rows = -(-len(signals) // columns)
    parts = [
        f'<g transform="translate({i % columns * (WIDTH + MARGIN)} {i // columns * (height + MARGIN)})">'
        f"{_strips(signal)}</g>"
        for i, signal in enumerate(signals)
    ]
    size = (WIDTH + MARGIN) * min(columns, len(signals)) - MARGIN, (height + MARGIN) * rows - MARGIN
    whole = f'viewBox="0 0 {size[0]} {size[1]}" width="{2 * size[0]}" height="{2 * size[1]}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {whole}>{"".join(parts)}</svg>'


def _strips(signal: NDArray[np.float32]) -> str:
    parts = []
    for channel, values in enumerate(signal[:MOST_CHANNELS]):
        middle = STRIP * (channel + 0.5)
        y = middle - np.clip(values, -1.1, 1.1) * (STRIP / 2 / 1.2)
        points = " ".join(f"{at:.1f},{level:.1f}" for at, level in _drawn(y))
        parts.append(
            f'<path d="M0 {middle:g}H{WIDTH}" stroke="{AXIS}"/><polyline points="{points}" fill="none" '
            f'stroke="{COLOURS[channel]}" stroke-width="1.4" stroke-linejoin="round"/>'
        )
    return "".join(parts)


def _drawn(y: NDArray[np.floating]) -> Iterable[Sequence[float]]:
    """(x, y) of the line; of more values than can be told apart, the ends of each piece of the signal."""
    if len(y) > 2 * WIDTH:
        pieces = np.array_split(y, WIDTH)
        y = np.array([end for piece in pieces for end in (piece.min(), piece.max())])
    return zip(np.linspace(0, WIDTH, len(y)).tolist(), y.tolist(), strict=True)
