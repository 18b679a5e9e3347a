"""The spread of the runs: every row named with its median, doubt shown by more than colour, the axis logarithmic."""

import re

import numpy as np
import pytest

from edgegen.report.distribution import Spread, distribution_plot
from edgegen.report.svg import VARIABLES


def row(label: str, p50: float, **changes: str) -> Spread:
    times = p50 * np.linspace(0.9, 1.4, 101)
    return Spread(
        label,
        tuple(times.tolist()),
        p50,
        (0.99 * p50, 1.01 * p50),
        changes.get("kind", "onnx"),
        **{key: value for key, value in changes.items() if key == "doubt"},
    )


def outlines(svg: str) -> list[str]:
    """The step lines: paths of 101 steps without a fill of their own."""
    return [path for path in re.findall(r"<path[^>]*>", svg, flags=re.DOTALL) if path.count("L") > 150]


def test_files_from_a_third_to_three_hundred_milliseconds_stand_on_one_page() -> None:
    plot = distribution_plot("p", [row("fast", 0.3), row("middle", 12.0), row("slow", 300.0)])
    assert plot is not None
    for text in ("fast", "middle", "slow", "0.300 ms (0.297 to 0.303)", "300 ms (297 to 303)"):
        assert f">{text}</text>" in plot.svg
        assert text in plot.alt
    assert "nine tenths within 0.405 ms" in plot.alt
    starts = [float(re.search(r'd="M ([\d.]+)', path)[1]) for path in outlines(plot.svg) if "fill: none" in path]  # type: ignore[index]
    assert starts == sorted(starts)
    # On a logarithmic axis equal factors are equal ways: 0.3 -> 12 is 40 times, 12 -> 300 is 25 times.
    assert (starts[1] - starts[0]) / (starts[2] - starts[1]) == pytest.approx(np.log(40) / np.log(25), rel=0.02)


def test_doubt_is_in_the_words_and_in_the_line_not_in_the_colour_alone() -> None:
    sure, doubtful = (distribution_plot("p", [row("a", 1.0, doubt=doubt)]) for doubt in ("", "noisy"))
    assert sure is not None
    assert doubtful is not None
    assert "stroke-dasharray: 4" in doubtful.svg
    assert "stroke-dasharray: 4" not in sure.svg
    assert len(outlines(sure.svg)) == len(outlines(doubtful.svg)) + 1  # the filled area
    assert "1.00 ms (0.990 to 1.01), noisy" in doubtful.svg
    assert "noisy" in doubtful.alt


def test_its_colours_are_the_page_s() -> None:
    plot = distribution_plot("p", [row("a", 1.0, kind=kind) for kind in ("onnx", "executorch", "torch", "other")])
    assert plot is not None
    assert not any(colour in plot.svg for colour in VARIABLES)
    assert set(re.findall(r"#[0-9a-f]{6}\b", plot.svg)) == set()


def test_a_long_name_is_cut_and_a_dollar_is_no_formula() -> None:
    plot = distribution_plot("p", [row("$x_{$ " + 30 * "word ", 1.0)])
    assert plot is not None
    assert "$x_{$ word" in plot.svg
    assert "…" in plot.svg


def test_without_rows_there_is_no_plot() -> None:
    assert distribution_plot("p", []) is None
