"""The verdict on made-up reports: rubble of each kind, weak images, usable ones, and the thresholds between them."""

from types import ModuleType
from typing import Any

import pytest

from edgegen.report.schema import Damage, QualityFigure, Report
from edgegen.report.verdict import verdict

# fd_local of real images with noise of these standard deviations, and the pixels of the real images.
DAMAGE = ((0.1, 20.0), (0.2, 60.0), (0.4, 400.0), (0.8, 900.0))
REAL = {"saturated": 0.3, "spread": 0.5}


@pytest.fixture
def made(made_up: ModuleType) -> Any:
    def report(fd_local: float | None = 60.0, **pixels: float) -> Report:
        """Teacher 52.3 in 20 steps; the student in one step as given, its pixels those of real images or `pixels`."""
        plain: Report = made_up.report()

        def figure(of: QualityFigure, **changes: Any) -> QualityFigure:
            return of.model_copy(update={**REAL, **changes})

        quality = plain.quality
        tables = {
            "teacher": {steps: figure(row) for steps, row in quality.teacher.items()},
            "slimmed": None,
            "baseline": None,
            "student": {"1": figure(quality.student["1"], fd_local=fd_local, sd=0.1, **pixels)},
            "floor": {"0": figure(quality.floor["0"])},
        }
        damage = tuple(Damage(noise=noise, fd_local=fd) for noise, fd in DAMAGE)
        return plain.model_copy(
            update={
                "ships": "student",
                "quality": quality.model_copy(update=tables),
                "extractor": plain.extractor.model_copy(update={"damage": damage, "fault": ""}),
                "artifacts": (),
            }
        )

    return report


def test_images_near_the_teachers_are_usable(made: Any) -> None:
    judged = verdict(made())
    assert (judged.level, judged.advice, judged.warnings) == ("usable", "", ())
    assert judged.reason == "fd_local 60.0 is 1.1 times the teacher's at 20 steps, 52.3"


@pytest.mark.parametrize(("scheduler", "level"), [(20.0, "weak"), (50.0, "usable"), (60.0, "usable"), (None, "usable")])
def test_a_brought_teacher_is_what_its_own_scheduler_makes_of_it(
    made: Any, scheduler: float | None, level: str
) -> None:
    """60 is 3 times its 20, though 1.1 times the 52.3 of uniform steps; a scheduler that is no nearer is left out."""
    report = made()
    row = report.quality.teacher["20"].model_copy(update={"fd_local": scheduler})
    judged = verdict(
        report.model_copy(update={"quality": report.quality.model_copy(update={"scheduler": {"20": row}})})
    )
    assert judged.level == level
    nearer = {20.0: "3.0 times the teacher's at 20 steps of its own scheduler, 20.0", 50.0: "1.2 times the teacher's"}
    assert nearer.get(scheduler or 0.0, "1.1 times the teacher's at 20 steps, 52.3") in judged.reason


@pytest.mark.parametrize(
    ("folder", "advice"), [(None, "more [teacher] steps"), ("ddpm", "one that was trained longer")]
)
def test_a_teacher_that_is_far_itself_is_trained_on_or_another_is_brought(
    made: Any, folder: str | None, advice: str
) -> None:
    report = made(300.0)
    far = report.quality.teacher["20"].model_copy(update={"fd_local": 300.0})
    quality = report.quality.model_copy(update={"teacher": {"20": far}})
    recipe = {**report.recipe, "teacher": {"folder": folder}}
    judged = verdict(report.model_copy(update={"quality": quality, "recipe": recipe}))
    assert judged.level == "weak"
    assert advice in judged.advice


@pytest.mark.parametrize(
    ("fd_local", "level"),
    [(104.0, "usable"), (105.0, "weak"), (399.0, "weak"), (400.0, "not usable"), (None, "not judged")],
)
def test_the_levels_begin_at_twice_the_teachers_distance_and_at_strong_noise(
    made: Any, fd_local: float | None, level: str
) -> None:
    judged = verdict(made(fd_local))
    assert judged.level == level
    assert bool(judged.advice) == (level != "usable")


@pytest.mark.parametrize(
    ("pixels", "level", "text"),
    [
        ({"saturated": 0.95}, "not usable", "95% of the pixels are black or white, of real images 30%"),
        ({"spread": 0.05}, "not usable", "the images differ by 10% of what real images differ by: they are all alike"),
        ({"saturated": 0.5}, "usable", "50% of the pixels are black or white"),
        ({"spread": 0.25}, "usable", "The images differ by 50% of what real images differ by"),
    ],
)
def test_rubble_is_not_usable_however_small_its_distance(
    made: Any, pixels: dict[str, float], level: str, text: str
) -> None:
    """A metric that sees nothing gives rubble a small fd_local: the pixels tell. Less of it is a warning."""
    judged = verdict(made(0.001, **pixels))
    assert judged.level == level
    assert text in (judged.reason if level == "not usable" else judged.warnings[0])


def test_missing_modes_and_one_class_are_warned_of(made: Any) -> None:
    report = made(recall=0.1)
    extractor = report.extractor.model_copy(update={"name": "rot-v1"})
    first, second = verdict(report.model_copy(update={"extractor": extractor})).warnings
    assert first == "Recall 0.100, where the teacher has 0.800: parts of the data are missing."
    assert second.startswith("There are no labels, or one class alone")


@pytest.mark.parametrize(("fd_local", "level"), [(199.0, "usable"), (200.0, "weak"), (400.0, "not usable")])
def test_without_a_teacher_images_are_judged_by_real_ones_with_noise(made: Any, fd_local: float, level: str) -> None:
    report = made(fd_local)
    alone = report.model_copy(update={"quality": report.quality.model_copy(update={"teacher": None})})
    judged = verdict(alone)
    assert judged.level == level
    if level == "weak":
        assert judged.reason.endswith("held-out real images have 18.7, and with noise of standard deviation 0.4 400")
        assert judged.advice == "One step is what costs: more [distill] steps, or another learning_rate."
    assert alone.quality.student is not None
    in_one = {"1": alone.quality.student["1"]}
    for slimmed, where in ((in_one, "in one step"), ({**in_one, "4": in_one["1"]}, "at any number of steps")):
        further = alone.model_copy(update={"quality": alone.quality.model_copy(update={"slimmed": slimmed})})
        assert (f"far from the real images {where}" in verdict(further).advice) == (level != "usable")
