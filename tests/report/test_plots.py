"""The plots: what is unknown is listed and not drawn, colours follow the page, the same input gives the same bytes."""

import json
import math
import re
from types import ModuleType
from typing import Any

import pytest

from edgegen.report.plots import curve_plots, pareto_plot, points, quality_plot, tradeoff_plot
from edgegen.report.schema import QualityFigure, QualityTable, Refinement
from edgegen.types import Latency

UNKNOWN = QualityFigure(fd_local=None, sd=None, kd_local=None, precision=None, recall=None)
NOTHING = QualityTable(teacher={"1": UNKNOWN}, slimmed={}, student={}, baseline=None, floor={"0": UNKNOWN})


def no_latency(made_up: ModuleType) -> Any:
    row = made_up.artifacts()[0]
    return row.model_copy(update={"latency": Latency(None), "fd_local": None})


def test_points_need_both_coordinates(made_up: ModuleType) -> None:
    shown, aside = points(made_up.report())
    assert [point.label for point in shown] == [
        "teacher, 20 steps",
        "student, 1 step",
        "onnx fp32",
        "onnx w8a8",
        "executorch fp32",
        "executorch w8a8 (parity failed)",
    ]
    assert all(point.p50_ms > 0 for point in shown)
    assert aside == [
        "coreml fp16: latency not known, fd_local 70.8, 331 kB",
        "coreml w8: latency and fd_local not known, 179 kB",
    ]
    assert {point.label for point in shown if point.filled} == {"onnx fp32", "onnx w8a8", "executorch fp32"}


def test_the_timed_student_is_at_the_quality_of_what_ships(made_up: ModuleType) -> None:
    shown, _ = points(made_up.report(ships="baseline"))
    assert next(point.fd_local for point in shown if point.label == "student, 1 step") == 144.0


def test_the_area_is_in_proportion_to_the_file(made_up: ModuleType) -> None:
    shown, _ = points(made_up.report())
    fp32, w8a8 = (next(point for point in shown if point.label == name) for name in ("onnx fp32", "onnx w8a8"))
    assert fp32.area(fp32.nbytes) / w8a8.area(fp32.nbytes) == pytest.approx(652_118 / 203_377)


def test_the_tradeoff_names_every_mark_and_lists_the_rest(made_up: ModuleType) -> None:
    plot = tradeoff_plot(made_up.report())
    assert plot is not None
    for text in ("teacher, 20 steps", "onnx w8a8", "executorch w8a8 (parity failed)"):
        assert f">{text}</text>" in plot.svg
        assert text in plot.alt
    assert "coreml" not in plot.svg
    assert len(plot.aside) == 2


def test_without_anything_known_there_are_no_plots(made_up: ModuleType) -> None:
    report = made_up.report(quality=NOTHING, artifacts=(no_latency(made_up),))
    assert quality_plot(report) is None
    assert tradeoff_plot(report) is None
    assert curve_plots({}) == []


def test_a_plot_of_one_value_is_drawn(made_up: ModuleType) -> None:
    one = QualityFigure(fd_local=3.0, sd=None, kd_local=None, precision=None, recall=None)
    quality = NOTHING.model_copy(update={"student": {"1": one}})
    plot = quality_plot(made_up.report(quality=quality))
    assert plot is not None
    assert "student" in plot.svg


@pytest.mark.parametrize("value", [0.0, -0.4])
def test_distances_that_are_not_positive_are_drawn_too(value: float, made_up: ModuleType) -> None:
    figure = QualityFigure(fd_local=value, sd=None, kd_local=None, precision=None, recall=None)
    quality = NOTHING.model_copy(update={"teacher": {"20": figure}, "student": {"1": figure}})
    assert quality_plot(made_up.report(quality=quality)) is not None
    assert tradeoff_plot(made_up.report(quality=quality)) is not None


def test_curves_leave_out_what_a_logarithm_cannot_show() -> None:
    plots = curve_plots(
        {
            "good": [(1, 1.0), (2, math.nan), (3, 0.0), (4, 0.1)],
            "flat": [(1, 0.5), (2, 0.5)],
            "short": [(1, 1.0)],
            "negative": [(1, -1.0), (2, -2.0)],
        }
    )
    assert [plot.title for plot in plots] == ["good", "flat"]
    assert plots[0].alt == "loss of good: from 1.00 to 0.100 in 4 steps"


def test_colours_are_the_pages_variables(made_up: ModuleType) -> None:
    plot = quality_plot(made_up.report())
    assert plot is not None
    colours = set(re.findall(r"#[0-9a-f]{6}\b", plot.svg))
    assert colours == set(), "a colour that dark mode does not reach"
    assert "var(--c-teacher)" in plot.svg


def test_ids_are_the_plots_own(made_up: ModuleType) -> None:
    plots = [quality_plot(made_up.report()), tradeoff_plot(made_up.report()), *curve_plots(made_up.curves())]
    ids = [name for plot in plots if plot is not None for name in re.findall(r'\bid="([^"]+)"', plot.svg)]
    assert len(ids) == len(set(ids))
    for plot in plots:
        assert plot is not None
        for name in re.findall(r'(?:url\(|href=")#([^)"]+)', plot.svg):
            assert f'id="{name}"' in plot.svg


def test_no_state_of_matplotlib_is_left_changed(made_up: ModuleType) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    quality_plot(made_up.report())
    assert dict(matplotlib.rcParams) == before


def test_the_pareto_set_of_a_mixed_file_is_drawn_with_its_worst_layers(made_up: ModuleType) -> None:
    choices = [{"nbytes": 100 + 10 * i, "psnr_db": 40.0 + i, "float_layers": ["net.a"][:i]} for i in range(3)]
    layers = [{"name": "net.a", "weights": 1234, "psnr_db": 41.5}, {"name": "net.b", "weights": 9, "psnr_db": 60.0}]
    row = {"scheme": "mixed", "psnr_before_db": 40.0, "psnr_after_db": 42.0, "float_layers": ["net.a"]}
    refined = Refinement.model_validate_json(json.dumps({**row, "layers": layers, "pareto": choices}))
    plot = pareto_plot(made_up.report(refined=(refined,)))
    assert plot is not None
    assert plot.alt == "PSNR against size: from 40.0 dB to 42.0 dB"
    assert "net.a 41.5 dB, 1,234 weights; net.b" in plot.note
    assert pareto_plot(made_up.report()) is None
