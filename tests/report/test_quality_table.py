"""The table of quality: a column for each figure that is known, and words for what the figures are."""

from types import ModuleType

import pytest

from edgegen.report.formats import UNKNOWN
from edgegen.report.quality_table import quality_table
from edgegen.report.schema import FeatureSpace, QualityFigure, QualityTable, Report, SpaceFigure
from edgegen.report.verdict import verdict

TITLES = ["Images", "Steps", "fd_local", "fd_random", "kd_local", "Precision", "Recall", "Density", "Coverage"]
TITLES += ["Classes", "Spectrum", "Nearest", "Copies"]


def titles(report: Report) -> list[str]:
    return [column.title for column in quality_table(report).columns]


def test_a_column_for_each_figure(made_up: ModuleType) -> None:
    report = made_up.report()
    assert titles(report) == TITLES
    table = quality_table(report)
    floor, teacher = table.rows[:2]
    assert [cell.text for cell in floor][:4] == ["real, held out", UNKNOWN, "18.7", "0.0280"]
    assert (teacher[0].text, teacher[1].text) == ("teacher", "1")
    assert (teacher[2].text, teacher[2].detail) == ("1,240", "± 50")
    assert (teacher[3].text, teacher[3].detail) == ("2.48", "± 0.14")
    for phrase in (
        "fd_local is not FID",
        "fd_random is the same in features of random-convolutions-v1, the same in every run and used by no training.",
        "Each figure is of 449 images;",
        "Copies: the share of the images within a third of that distance.",
    ):
        assert phrase in table.note


def test_figures_that_nobody_measured_have_no_column(made_up: ModuleType) -> None:
    """As in a report of an older version, or of data without classes."""
    plain = {"1": QualityFigure(fd_local=1.0, sd=0.1, kd_local=0.1, precision=0.9, recall=0.8)}
    quality = QualityTable(teacher=plain, slimmed=plain, student=plain, baseline=None, floor={"0": plain["1"]})
    report = made_up.report(quality=quality, spaces=())
    assert titles(report) == ["Images", "Steps", "fd_local", "kd_local", "Precision", "Recall"]
    assert "Copies" not in quality_table(report).note


def test_further_spaces_and_fewer_held_out_images(made_up: ModuleType) -> None:
    spaces = (
        FeatureSpace(key="random", name="random-convolutions-v1", fault="the distance does not grow"),
        FeatureSpace(key="inception", name="inception-v3-compat,sha256:6726825d"),
        FeatureSpace(key="dinov2", name="dinov2,24 layers"),
    )
    figure = QualityFigure(
        fd_local=None,
        sd=None,
        kd_local=None,
        precision=None,
        recall=None,
        spaces={"inception": SpaceFigure(fd=4.53, sd=0.02, kd=0.001), "dinov2": SpaceFigure(fd=211.0, sd=1.0, kd=0.1)},
    )
    tables = {"teacher": {"1": figure}, "slimmed": {}, "student": {}, "baseline": None, "floor": {}}
    report = made_up.report(quality=QualityTable.model_validate(tables), spaces=spaces, n=50_000, n_heldout=10_000)
    assert titles(report) == ["Images", "Steps", "fd_local", "FID", "fd_dinov2"]
    note = quality_table(report).note
    assert "No fd_random: the distance does not grow." in note
    assert "FID is the same in features of inception-v3-compat,sha256:6726825d, against all training images." in note
    assert "of 50,000 images (of held-out ones 10,000)" in note


def shipped(made_up: ModuleType, **changes: float) -> Report:
    report: Report = made_up.report()
    student = {"1": report.quality.student["1"].model_copy(update=changes)}
    return report.model_copy(update={"quality": report.quality.model_copy(update={"student": student})})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"copied": 0.3}, "The student copies: 30% of its images are training images or nearly so (of real held-out "),
        ({"class_distance": 0.3}, "Classes are missing or too frequent: 30% of the images would have to be of another"),
        ({"copied": 0.04, "class_distance": 0.1}, ""),
    ],
)
def test_a_verdict_warns_of_copies_and_classes(made_up: ModuleType, changes: dict[str, float], words: str) -> None:
    warnings = [text for text in verdict(shipped(made_up, **changes)).warnings if "copies" in text or "Classes" in text]
    assert len(warnings) == bool(words)
    assert all(text.startswith(words) for text in warnings)


def test_a_teacher_that_copies_is_named(made_up: ModuleType) -> None:
    report = made_up.report()
    teacher = {steps: row.model_copy(update={"copied": 0.5}) for steps, row in report.quality.teacher.items()}
    copying = report.model_copy(update={"quality": report.quality.model_copy(update={"teacher": teacher})})
    assert any(text.startswith("The teacher at 20 steps copies: 50%") for text in verdict(copying).warnings)


def test_features_that_were_trained_on_are_named(made_up: ModuleType) -> None:
    report = made_up.report()
    assert "used in the training of" not in quality_table(report).note
    extractor = report.extractor.model_copy(update={"trained_on": ("slim", "distill")})
    leaky = report.model_copy(update={"extractor": extractor})
    assert "These features were used in the training of slim, distill, which lowers it." in quality_table(leaky).note
    assert any("compare by fd_random" in text for text in verdict(leaky).warnings)


def test_a_file_is_compared_on_its_own_noise(made_up: ModuleType) -> None:
    """`fd_local` of many images is lower by itself than that of the few that a file is compared on."""
    report = shipped(made_up, fd_local=50.0, fd_local_first=71.0)
    further = [text for text in verdict(report).warnings if "further from the real ones" in text]
    assert [text.partition(":")[0] for text in further] == ["digits_executorch_w8a8.pte"]  # 96.2, others 71
