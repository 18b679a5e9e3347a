"""The verdict on the images: of the demo, of a short run from a brought teacher, and of rubble."""

from types import ModuleType
from typing import Any

import pytest

from edgegen.report.schema import Damage, Extractor, QualityFigure, QualityTable, Report
from edgegen.report.verdict import verdict

# fd_local of the demo (examples/digits.toml), and of garments from a brought teacher after two minutes of training:
# by network and steps, and of real images with noise of 0, 0.1, 0.2 and 0.4.
DIGITS = {"teacher": {1: 5.494, 4: 0.925, 20: 0.727}, "slimmed": {1: 1.301, 20: 0.948}, "student": {1: 0.999}}
DIGITS_NOISE = (0.258, 0.480, 1.108, 4.138)
GARMENTS = {"teacher": {1: 35.5, 20: 0.66}, "slimmed": {1: 7.19, 20: 3.89}, "student": {1: 3.547}}
GARMENTS_NOISE = (0.234, 0.698, 1.875, 7.722)


def figure(fd_local: float | None, **changes: Any) -> QualityFigure:
    facts = {"sd": 0.05, "kd_local": 0.0, "precision": 0.8, "recall": 0.8, "saturated": 0.4, "spread": 0.5}
    return QualityFigure(fd_local=fd_local, **{**facts, **changes})


def judged(
    made_up: ModuleType,
    figures: dict[str, dict[int, float | None]],
    noise: tuple[float, ...],
    *,
    shipped: dict[str, Any] | None = None,
    ships: str = "student",
    fault: str = "",
    name: str = "cnn-v1,x",
) -> Report:
    tables = {net: {str(n): figure(fd) for n, fd in table.items()} for net, table in figures.items()}
    if shipped:
        tables["student"]["1"] = figure(figures["student"][1], **shipped)
    tables = {"baseline": None, **tables, "floor": {"0": figure(noise[0], sd=None)}}
    damage = tuple(Damage(noise=n, fd_local=fd) for n, fd in zip((0.0, 0.1, 0.2, 0.4), noise, strict=True))
    extractor = Extractor(name=name, fd_name=f"fd_local[{name}]", accuracy=0.9, fault=fault, damage=damage)
    report: Report = made_up.report(quality=QualityTable(**tables), extractor=extractor, artifacts=(), ships=ships)
    return report


def test_the_demo_is_usable(made_up: ModuleType) -> None:
    result = verdict(judged(made_up, DIGITS, DIGITS_NOISE))
    assert (result.level, result.advice, result.warnings) == ("usable", "", ())
    assert "1.4 times the teacher's at 20 steps" in result.reason


def test_it_is_the_teacher_at_its_most_steps_that_counts(made_up: ModuleType) -> None:
    """Against the teacher's single step everything would be usable."""
    result = verdict(judged(made_up, GARMENTS, GARMENTS_NOISE))
    assert result.level == "weak"
    assert "5.4 times the teacher's at 20 steps, 0.660" in result.reason
    assert "[slim] steps" in result.advice, "the slimmed network is far at 20 steps, too"


def test_what_is_as_far_as_strong_noise_is_not_usable(made_up: ModuleType) -> None:
    result = verdict(judged(made_up, {**DIGITS, "student": {1: 5.494}}, DIGITS_NOISE))
    assert result.level == "not usable"
    assert "real images with noise of standard deviation 0.4" in result.reason
    assert result.advice.startswith("One step is what costs")


def test_a_student_as_bad_as_its_bad_teacher_is_not_usable(made_up: ModuleType) -> None:
    """The ratio to the teacher alone would call rubble from a rubble teacher good."""
    rubble: dict[str, dict[int, float | None]] = {net: {1: 30.0, 20: 28.0} for net in ("teacher", "slimmed")}
    result = verdict(judged(made_up, {**rubble, "student": {1: 29.0}}, DIGITS_NOISE))
    assert result.level == "not usable"
    assert result.advice.startswith("The teacher at 20 steps is far from the real images itself")


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        ({"saturated": 0.95}, "95% of the pixels are black or white, of real images 40%: the images are saturated"),
        ({"spread": 0.05}, "the images differ by 10% of what real images differ by: they are all alike"),
    ],
)
def test_rubble_and_collapse_are_seen_whatever_the_features_say(
    made_up: ModuleType, pixels: dict[str, float], reason: str
) -> None:
    assert verdict(judged(made_up, DIGITS, DIGITS_NOISE, shipped=pixels)).reason == reason
    unknown: dict[str, dict[int, float | None]] = {"teacher": {20: None}, "slimmed": {1: None}, "student": {1: None}}
    blind = verdict(judged(made_up, unknown, DIGITS_NOISE, shipped=pixels, fault="features are worth nothing"))
    assert (blind.level, blind.reason) == ("not usable", reason)


def test_without_figures_nothing_is_judged(made_up: ModuleType) -> None:
    unknown: dict[str, dict[int, float | None]] = {"teacher": {20: None}, "slimmed": {1: None}, "student": {1: None}}
    result = verdict(judged(made_up, unknown, DIGITS_NOISE, fault="the extractor guesses"))
    assert (result.level, result.reason) == ("not judged", "the extractor guesses")


def test_what_ships_is_what_is_judged(made_up: ModuleType) -> None:
    figures = {**GARMENTS, "baseline": {1: 0.9}}
    assert verdict(judged(made_up, figures, GARMENTS_NOISE)).level == "weak"
    result = verdict(judged(made_up, figures, GARMENTS_NOISE, ships="baseline"))
    assert result.level == "usable"
    assert any("further than plain regression" in warning for warning in result.warnings)


def test_a_stage_that_made_the_images_worse_warns_beyond_chance_alone(made_up: ModuleType) -> None:
    worse = verdict(judged(made_up, {**DIGITS, "student": {1: 1.5}}, DIGITS_NOISE))
    (warning,) = worse.warnings
    assert warning == (
        "distill made the images worse (fd_local 1.30 → 1.50 in one step): a lower [distill] learning_rate, or fewer "
        "steps?"
    )
    assert verdict(judged(made_up, {**DIGITS, "student": {1: 1.39}}, DIGITS_NOISE)).warnings == ()  # sd 0.05 each


def test_features_without_classes_and_missing_parts_of_the_data_warn(made_up: ModuleType) -> None:
    result = verdict(judged(made_up, DIGITS, DIGITS_NOISE, shipped={"recall": 0.2}, name="rot-v1,x"))
    assert [warning.split(":")[0] for warning in result.warnings] == [
        "Recall 0.200, where the teacher has 0.800",
        "There are no labels, or one class alone",
    ]
