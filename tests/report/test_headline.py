"""The big figures: computed from the report, absent where an input is not known, honest where it got worse."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from edgegen.report.formats import TIMES
from edgegen.report.headline import chosen, headline
from edgegen.report.schema import ArtifactRow, Report, Sizes
from edgegen.report.tables import sizes
from edgegen.types import Latency, Parity

TITLES = ["Time of one image", "Parameters", "File", "fd_local (lower is better)"]


def titles(report: Report) -> list[str]:
    return [figure.title for figure in headline(report)]


def changed(row: ArtifactRow, **changes: Any) -> ArtifactRow:
    return row.model_copy(update=changes)


def test_the_figures(made_up: ModuleType) -> None:
    speed, parameters, file, quality = headline(made_up.report())
    assert (speed.value, speed.change) == (f"101{TIMES} faster", "61.2 → 0.604 ms")  # 61.2 / 0.604 = 101.3
    assert (parameters.value, parameters.change) == (f"4.1{TIMES} fewer", "648 k → 160 k")  # 648210 / 159873 = 4.05
    assert (file.value, file.change) == (f"13{TIMES} smaller", "2.59 MB → 203 kB")  # 4 * 648210 / 203377 = 12.7
    assert (quality.value, quality.change) == ("52.3 → 71.4", "real images: 18.7")
    assert [figure.title for figure in (speed, parameters, file, quality)] == TITLES
    assert "onnx w8a8" in speed.note
    assert "digits_onnx_w8a8.onnx" in file.note


def test_an_artifact_that_is_not_proven_is_never_the_headline(made_up: ModuleType) -> None:
    report = made_up.report()
    fastest = min((row for row in report.artifacts if row.latency.p50_ms), key=lambda row: row.latency.p50_ms)
    assert fastest.parity.status == "failed", "the made-up report tempts"
    assert chosen(report).file == "digits_onnx_w8a8.onnx"
    unproven = [changed(row, parity=Parity("not checked", "", 30.0)) for row in report.artifacts]
    assert chosen(made_up.report(artifacts=tuple(unproven))) is None
    assert titles(made_up.report(artifacts=tuple(unproven))) == [TITLES[1], TITLES[3]]


def test_without_latencies_the_smallest_file_is_shown_and_no_speed(made_up: ModuleType) -> None:
    rows = [changed(row, latency=Latency(None, reason="no CPU")) for row in made_up.artifacts()]
    report = made_up.report(artifacts=tuple(rows))
    assert chosen(report).file == "digits_onnx_w8a8.onnx"
    assert titles(report) == TITLES[1:]


def test_without_a_timed_teacher_there_is_no_speed(made_up: ModuleType) -> None:
    assert titles(made_up.report(torch_latency=())) == TITLES[1:]
    teacher, student = made_up.report().torch_latency
    unknown = teacher.model_copy(update={"latency": Latency(None, reason="died")})
    assert titles(made_up.report(torch_latency=(unknown, student))) == TITLES[1:]


def test_quality_falls_back_to_the_student_and_says_so(made_up: ModuleType) -> None:
    rows = [changed(row, fd_local=None) for row in made_up.artifacts()]
    quality = headline(made_up.report(artifacts=tuple(rows)))[-1]
    assert quality.value == "52.3 → 71.2"
    assert "student in PyTorch, one step" in quality.note


@pytest.mark.parametrize("lost", ["teacher", "student"])
def test_quality_needs_both_sides(lost: str, made_up: ModuleType) -> None:
    rows = tuple(changed(row, fd_local=None) for row in made_up.artifacts())
    report = made_up.report(artifacts=rows)
    report = made_up.report(artifacts=rows, quality=report.quality.model_copy(update={lost: {}}))
    assert titles(report) == TITLES[:3]


def test_no_floor_no_figure_of_it(made_up: ModuleType) -> None:
    quality = made_up.report().quality.model_copy(update={"floor": {}})
    assert headline(made_up.report(quality=quality))[-1].change == ""


def test_what_got_worse_is_called_so(made_up: ModuleType) -> None:
    row = made_up.artifacts()[0]
    slow = changed(row, nbytes=10_000_000, latency=replace(row.latency, p50_ms=122.4))
    report = made_up.report(
        artifacts=(slow,), parameters=made_up.Sizes(teacher=100_000, student=200_000), data=made_up.report().data
    )
    speed, parameters, file, _ = headline(report)
    assert speed.value == f"2.0{TIMES} slower"
    assert parameters.value == f"2.0{TIMES} more"
    assert file.value == f"25{TIMES} larger"


def test_nothing_is_divided_by_zero(made_up: ModuleType) -> None:
    report = made_up.report(parameters=made_up.Sizes(teacher=0, student=0))
    assert titles(report) == [TITLES[0], TITLES[3]]


def test_without_a_teacher_quality_is_compared_with_real_images(made_up: ModuleType) -> None:
    whole = made_up.report()
    report = made_up.report(
        quality=whole.quality.model_copy(update={"teacher": None}),
        parameters=Sizes(student=159_873),
        macs=Sizes(student=2_504_192),
        torch_latency=whole.torch_latency[1:],
    )
    (quality,) = headline(report)
    assert (quality.title, quality.value, quality.change) == (TITLES[3], "71.4", "real images: 18.7")
    assert "teacher" not in quality.note
    assert [column.title for column in sizes(report).columns] == ["", "Student"]
