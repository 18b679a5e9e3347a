"""The verdict on the images, which parity says nothing of: usable, weak or not usable; why, and what to try next.

The thresholds were tried on the demo (usable), on a short run from a brought teacher (weak) and on rubble; docs/run.md
has their figures.
"""

from edgegen.report.formats import number, ratio, worded
from edgegen.report.headline import full_teacher, quality_of
from edgegen.report.schema import QualityFigure, Report, Verdict

USABLE_TIMES = 2.0  # of the teacher's fd_local: the demo's goal
STRONG_NOISE = 0.4  # standard deviation of noise on real images whose fd_local nothing usable reaches
NEAR = 0.5  # share of that fd_local from which on images are weak
SATURATED = 0.5  # share of the pixels that should be neither black nor white, and are
COLLAPSED = 0.25  # spread of the images, as a share of that of real images
SOME_COPIED = 0.05  # share of copies beyond that of held-out images, and
SOME_MISPLACED = 0.1  # share of images of the wrong class beyond held-out images', from which on a warning
SOME_SATURATED, SOME_COLLAPSED, SOME_RECALL = 0.2, 0.6, 0.5  # from here on a warning
WORSE_FILE = 1.25  # fd_local of a file, as a multiple of PyTorch's


def verdict(report: Report) -> Verdict:
    """Of what is shipped, in one step, against the teacher at its full steps and against real images with noise."""
    judged, kind = _judged(report), report.data.kind
    return Verdict(
        level=judged.level,
        reason=worded(judged.reason, kind),
        advice=worded(judged.advice, kind),
        warnings=tuple(worded(warning, kind) for warning in judged.warnings),
    )


def _judged(report: Report) -> Verdict:
    shipped, warnings = quality_of(report, report.ships, 1), tuple(_warnings(report))
    fault = _pixel_fault(report, shipped, most_saturated=SATURATED, least_spread=COLLAPSED)
    if fault:
        return Verdict(level="not usable", reason=fault, advice=_advice(report), warnings=warnings)
    if shipped is None or shipped.fd_local is None:
        reason = report.extractor.fault or "there is no figure of the shipped generator in one step"
        return Verdict(level="not judged", reason=reason, advice="Look at the images.", warnings=warnings)
    full, strong = full_teacher(report), _strong(report)
    teacher = full.figure
    if strong is not None and shipped.fd_local >= strong:
        reason = (
            f"fd_local {number(shipped.fd_local)} is beyond {number(strong)}, that of real images with noise of "
            f"standard deviation {STRONG_NOISE}"
        )
        return Verdict(level="not usable", reason=reason, advice=_advice(report), warnings=warnings)
    if report.quality.teacher is None:
        return _without_teacher(report, shipped.fd_local, warnings)
    if teacher is None or not teacher.fd_local:
        return Verdict(level="not judged", reason="there is no figure of the teacher", warnings=warnings)
    times = shipped.fd_local / teacher.fd_local
    reason = (
        f"fd_local {number(shipped.fd_local)} is {ratio(times)} times the teacher's {full.how}, "
        f"{number(teacher.fd_local)}"
    )
    if times > USABLE_TIMES:
        return Verdict(level="weak", reason=reason, advice=_advice(report), warnings=warnings)
    if strong is not None and shipped.fd_local >= NEAR * strong:
        reason += f", and comes near that of real images with strong noise, {number(strong)}"
        return Verdict(level="weak", reason=reason, advice=_advice(report), warnings=warnings)
    return Verdict(level="usable", reason=reason, warnings=warnings)


def _without_teacher(report: Report, distance: float, warnings: tuple[str, ...]) -> Verdict:
    """Against real images alone: held-out ones, and ones with strong noise, which `distance` does not reach."""
    floor, strong = quality_of(report, "floor", 0), _strong(report)
    if strong is None or floor is None or floor.fd_local is None:
        return Verdict(level="not judged", reason="there is no teacher, and no scale to judge by", warnings=warnings)
    reason = (
        f"fd_local {number(distance)}; there is no teacher to compare with, held-out real images have "
        f"{number(floor.fd_local)}, and with noise of standard deviation {STRONG_NOISE} {number(strong)}"
    )
    if distance >= NEAR * strong:
        return Verdict(level="weak", reason=reason, advice=_advice(report), warnings=warnings)
    return Verdict(level="usable", reason=reason, warnings=warnings)


def _strong(report: Report) -> float | None:
    """fd_local of real images with strong noise."""
    return next((row.fd_local for row in report.extractor.damage if row.noise == STRONG_NOISE), None)


def _advice(report: Report) -> str:
    """What to try next: the first stage after which the images are bad."""
    full, strong = full_teacher(report), _strong(report)
    teacher, at = full.figure, full.how
    if teacher is not None and _pixel_fault(report, teacher, most_saturated=SATURATED, least_spread=COLLAPSED):
        return f"The teacher's own images {at} are no better: look at them, and at its loss."
    if teacher is not None and teacher.fd_local and strong is not None and teacher.fd_local >= NEAR * strong:
        brought = report.recipe.get("teacher", {}).get("folder") is not None
        what = (
            "bring one that was trained longer"
            if brought
            else "more [teacher] steps, or a larger [teacher] size or model"
        )
        return f"The teacher {at} is far from the real images itself (fd_local {number(teacher.fd_local)}): {what}."
    slimmed = _best(report, "slimmed")
    if report.quality.teacher is None:
        if slimmed is not None and strong is not None and slimmed >= NEAR * strong:
            return (
                f"The network is far from the real images {_steps_of(report)} (fd_local {number(slimmed)}): more "
                "[slim] steps, or a larger [slim] model."
            )
        return "One step is what costs: more [distill] steps, or another learning_rate."
    if teacher is not None and teacher.fd_local and slimmed is not None and slimmed > USABLE_TIMES * teacher.fd_local:
        return (
            f"The smaller network is far from the teacher {_steps_of(report)} (fd_local {number(slimmed)}): more "
            "[slim] steps, more [pairs] count, or a larger [slim] keep."
        )
    return "One step is what costs: more [distill] steps, or another learning_rate; more [pairs] count."


def _steps_of(report: Report) -> str:
    """In which steps the network of `slim` was judged: in one, where its method trains it for that alone."""
    return "in one step" if set(report.quality.slimmed or {}) == {"1"} else "at any number of steps"


def _best(report: Report, network: str) -> float | None:
    """The least fd_local over the numbers of steps."""
    table: dict[str, QualityFigure] = getattr(report.quality, network) or {}
    return min((row.fd_local for row in table.values() if row.fd_local is not None), default=None)


def _pixel_fault(report: Report, figure: QualityFigure | None, *, most_saturated: float, least_spread: float) -> str:
    """What is wrong with the pixels, "" where nothing is or nothing is known."""
    real = quality_of(report, "floor", 0)
    if figure is None or real is None:
        return ""
    saturated, usual = figure.saturated, real.saturated
    if saturated is not None and usual is not None and saturated - usual > most_saturated * (1 - usual):
        return f"{saturated:.0%} of the pixels are black or white, of real images {usual:.0%}: the images are saturated"
    if figure.spread is not None and real.spread and figure.spread < least_spread * real.spread:
        return (
            f"the images differ by {figure.spread / real.spread:.0%} of what real images differ by: they are all alike"
        )
    return ""


def _warnings(report: Report) -> list[str]:
    """What to know beside the level."""
    shipped, warnings = quality_of(report, report.ships, 1), []
    strictly = _pixel_fault(report, shipped, most_saturated=SATURATED, least_spread=COLLAPSED)
    mildly = _pixel_fault(report, shipped, most_saturated=SOME_SATURATED, least_spread=SOME_COLLAPSED)
    if mildly and not strictly:
        warnings.append(f"{mildly[0].upper()}{mildly[1:]}.")
    teacher = full_teacher(report).figure
    recall = None if shipped is None else shipped.recall
    if recall is not None and teacher is not None and teacher.recall and recall < SOME_RECALL * teacher.recall:
        warnings.append(
            f"Recall {number(recall)}, where the teacher has {number(teacher.recall)}: parts of the data are missing."
        )
    warnings += [_copies(report), _wrong_classes(report), _worse(report, "slimmed"), _worse(report, "baseline")]
    if report.extractor.trained_on:
        warnings.append(
            f"The features of fd_local were used in the training of {', '.join(report.extractor.trained_on)}, which "
            "lowers it: compare by fd_random, whose features no training uses."
        )
    if report.extractor.name.startswith("rot-"):
        warnings.append(
            "There are no labels, or one class alone: the figures are of features that tell quarter turns apart, which "
            "see less than features of classes. Look at the images."
        )
    same_noise = None if shipped is None else shipped.fd_local_first or shipped.fd_local
    if same_noise:
        warnings += [
            f"{row.file}: its images are further from the real ones (fd_local {number(row.fd_local)}) than PyTorch's "
            f"({number(same_noise)})."
            for row in report.artifacts
            if row.fd_local is not None and row.fd_local > WORSE_FILE * same_noise
        ]
    return [warning for warning in warnings if warning]


def _copies(report: Report) -> str:
    """Whether what is shipped copies training images; where it does not, whether the teacher does."""
    real = quality_of(report, "floor", 0)
    usual = 0.0 if real is None or real.copied is None else real.copied
    teacher = full_teacher(report)
    shipped = (f"The {report.ships}", quality_of(report, report.ships, 1))
    for name, figure in (shipped, (f"The teacher {teacher.how}", teacher.figure)):
        if figure is not None and figure.copied is not None and figure.copied - usual > SOME_COPIED:
            return (
                f"{name} copies: {figure.copied:.0%} of its images are training images or nearly so (of real held-out "
                f"images {usual:.0%})."
            )
    return ""


def _wrong_classes(report: Report) -> str:
    shipped, real = quality_of(report, report.ships, 1), quality_of(report, "floor", 0)
    if shipped is None or real is None or shipped.class_distance is None or real.class_distance is None:
        return ""
    if shipped.class_distance - real.class_distance <= SOME_MISPLACED:
        return ""
    return (
        f"Classes are missing or too frequent: {shipped.class_distance:.0%} of the images would have to be of another "
        f"one (of real held-out images {real.class_distance:.0%})."
    )


def _worse(report: Report, before: str) -> str:
    """Where the student is further in one step than another network of the run, by more than both vary: by how much."""
    old, new = quality_of(report, before, 1), quality_of(report, "student", 1)
    if old is None or new is None or old.fd_local is None or new.fd_local is None:
        return ""
    if new.fd_local - old.fd_local <= (old.sd or 0.0) + (new.sd or 0.0):
        return ""
    change = f"fd_local {number(old.fd_local)} → {number(new.fd_local)} in one step"
    if before == "slimmed":
        return f"distill made the images worse ({change}): a lower [distill] learning_rate, or fewer steps?"
    return f"distill ended further than plain regression for as many steps ({change}): another learning_rate?"
