"""The gains in a few figures: each is computed from the report, and left out where an input of it is not known."""

from dataclasses import astuple, dataclass

from edgegen.report.formats import TIMES, nbytes, number, plural, ratio, short_count, worded
from edgegen.report.schema import ArtifactRow, QualityFigure, Report, TorchLatency

FP32_BYTES = 4


@dataclass(frozen=True)
class Figure:
    """One of the big figures: `title` says of what, `value` is large; `change` may be empty."""

    title: str
    value: str
    change: str
    note: str


def headline(report: Report) -> list[Figure]:
    """Speed, parameters, file and quality, all of the same artifact (`chosen`), as far as they are known."""
    figures = (_speed(report), _parameters(report), _file(report), _quality(report))
    known = [figure for figure in figures if figure is not None]
    return [Figure(*(worded(text, report.data.kind) for text in astuple(figure))) for figure in known]


def chosen(report: Report) -> ArtifactRow | None:
    """The fastest artifact that was proven equal to PyTorch; the smallest one where no latency is known."""
    proven = [row for row in report.artifacts if row.parity.status == "ok"]
    timed = [row for row in proven if row.latency.p50_ms is not None]
    if timed:
        return min(timed, key=lambda row: row.latency.p50_ms or 0.0)
    return min(proven, key=lambda row: row.nbytes, default=None)


def slowest_teacher(report: Report) -> TorchLatency | None:
    """The timed teacher at its most steps: what the student replaces."""
    rows = [row for row in report.torch_latency if row.network == "teacher" and row.latency.p50_ms is not None]
    return max(rows, key=lambda row: row.steps, default=None)


@dataclass(frozen=True)
class FullTeacher:
    """The teacher at its most steps, and its figure there: what everything is compared with."""

    figure: QualityFigure | None
    how: str  # "at 20 steps"


def full_teacher(report: Report) -> FullTeacher:
    """A teacher that was brought along by its own scheduler, where that brings it nearer to the real images."""
    steps = max((int(steps) for steps in report.quality.teacher or {}), default=0)
    own, scheduled = (quality_of(report, row, steps) for row in ("teacher", "scheduler"))
    at = f"at {plural(steps, 'step')}"
    if own is None or scheduled is None or scheduled.fd_local is None or scheduled.fd_local >= (own.fd_local or 0.0):
        return FullTeacher(own, at)
    return FullTeacher(scheduled, f"{at} of its own scheduler")


def quality_of(report: Report, network: str, steps: int) -> QualityFigure | None:
    table = getattr(report.quality, network)
    return None if table is None else table.get(str(steps))


def _speed(report: Report) -> Figure | None:
    before, after = slowest_teacher(report), chosen(report)
    if before is None or after is None or not before.latency.p50_ms or not after.latency.p50_ms:
        return None
    old, new = before.latency.p50_ms, after.latency.p50_ms
    return Figure(
        "Time of one image",
        f"{ratio(old / new)}{TIMES} faster" if old >= new else f"{ratio(new / old)}{TIMES} slower",
        f"{number(old)} → {number(new)} ms",
        f"teacher at {plural(before.steps, 'step')} in PyTorch → {after.label} in one step; median on this CPU",
    )


def _parameters(report: Report) -> Figure | None:
    old, new = report.parameters.teacher, report.parameters.student
    if not old or not new:
        return None
    return Figure(
        "Parameters",
        f"{ratio(old / new)}{TIMES} fewer" if old >= new else f"{ratio(new / old)}{TIMES} more",
        f"{short_count(old)} → {short_count(new)}",
        "teacher → student",
    )


def _file(report: Report) -> Figure | None:
    row, old = chosen(report), FP32_BYTES * (report.parameters.teacher or 0)
    if row is None or not old or not row.nbytes:
        return None
    new = row.nbytes
    return Figure(
        "File",
        f"{ratio(old / new)}{TIMES} smaller" if old >= new else f"{ratio(new / old)}{TIMES} larger",
        f"{nbytes(old)} → {nbytes(new)}",
        f"the teacher's weights in fp32 → {row.file}",
    )


def _quality(report: Report) -> Figure | None:
    teacher = full_teacher(report)
    before = teacher.figure
    row, student = chosen(report), quality_of(report, report.ships, 1)
    after, name = None, ""
    if row is not None and row.fd_local is not None:
        after, name = row.fd_local, row.label
    elif student is not None and student.fd_local is not None:
        after, name = student.fd_local, f"{report.ships} in PyTorch, one step"
    floor = quality_of(report, "floor", 0)
    real = None if floor is None else floor.fd_local
    if after is not None and real is not None and report.quality.teacher is None:
        note = f"distance to the real images; {name}"
        return Figure("fd_local (lower is better)", number(after), f"real images: {number(real)}", note)
    if before is None or before.fd_local is None or after is None:
        return None
    return Figure(
        "fd_local (lower is better)",
        f"{number(before.fd_local)} → {number(after)}",
        f"real images: {number(real)}" if real is not None else "",
        f"distance to the real images; teacher {teacher.how} → {name}",
    )
