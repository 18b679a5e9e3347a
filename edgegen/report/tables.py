"""The tables of the report, made once and shown in HTML and in Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgegen.report.formats import PARITY_TEXT, TIMES, UNKNOWN, count, nbytes, number, plural, seconds, value, worded
from edgegen.report.schema import ArtifactRow, Report
from edgegen.types import Latency, Parity

Tone = Literal["", "ok", "failed", "warn", "muted"]
NETWORKS = ("bicubic", "teacher", "scheduler", "slimmed", "student", "finished", "best_of_4", "baseline")
VERDICT_TONE: Mapping[str, Tone] = {"usable": "ok", "weak": "warn", "not usable": "failed", "not judged": "warn"}
PARITY_TONE: Mapping[str, Tone] = {"ok": "ok", "failed": "failed", "not checked": "warn"}
EQUAL_DB = 200.0  # edgegen.verification.parity's stand-in for "not one bit differs"


@dataclass(frozen=True)
class TableCell:
    """`detail` goes small under the text; the tone only colours what the text says already."""

    text: str
    tone: Tone = ""
    detail: str = ""


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = False


@dataclass(frozen=True)
class ReportTable:
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    note: str = ""


def columns(*titles: str) -> tuple[Column, ...]:
    """Columns; a title that ends with # is of numbers."""
    return tuple(Column(title.removesuffix("#"), title.endswith("#")) for title in titles)


def cells(*texts: str | TableCell) -> tuple[TableCell, ...]:
    """A row; what is not known is pale."""
    return tuple(
        text if isinstance(text, TableCell) else TableCell(text, "muted" if text == UNKNOWN else "") for text in texts
    )


def artifacts(report: Report) -> ReportTable:
    """Every file: its size, and whether it computes what PyTorch computes."""
    titles = columns(
        "File", "Size#", "Parity", "PSNR dB#", "Floor dB#", "Max. error#", "Samples#", "Run by", "fd_local#"
    )
    return ReportTable(
        titles, tuple(_artifact_row(row) for row in report.artifacts), worded(PARITY_NOTE, report.data.kind)
    )


PARITY_NOTE = (
    "Parity: the file against PyTorch in fp32 on the same noise, images in [-1, 1]. “same as PyTorch” is a PSNR of "
    "at least the floor of its scheme, in the mean and on the worst tenth of the images, and says nothing of how good "
    "they are; what could not be run here reads “not checked”. Below the PSNR: the worst image's, and the mean SSIM."
)


def _artifact_row(row: ArtifactRow) -> tuple[TableCell, ...]:
    parity = row.parity
    unchecked = parity.status == "not checked"
    return cells(
        TableCell(row.file, detail=f"{row.label} · {row.engine}"),
        nbytes(row.nbytes),
        TableCell(PARITY_TEXT[parity.status], PARITY_TONE[parity.status], parity.reason),
        TableCell(_psnr(parity), detail=_beside_psnr(parity)),
        UNKNOWN if unchecked else f"{parity.floor_db:g}",
        number(parity.max_abs_error, 2),
        UNKNOWN if unchecked else count(parity.samples),
        TableCell(parity.method or UNKNOWN, detail=parity.arithmetic),
        number(row.fd_local),
    )


def _psnr(parity: Parity) -> str:
    equal = parity.max_abs_error == 0 or (parity.psnr_db is not None and parity.psnr_db >= EQUAL_DB)
    return "equal" if equal else number(parity.psnr_db)


def _beside_psnr(parity: Parity) -> str:
    worst = "" if parity.worst_db is None or _psnr(parity) == "equal" else f"worst {number(parity.worst_db)}"
    similarity = "" if parity.ssim is None else f"SSIM {parity.ssim:.3f}"
    return " · ".join(part for part in (worst, similarity, parity.caveat) if part)


def refined(report: Report) -> ReportTable:
    """What recovery and the other methods brought, by scheme."""
    rows = tuple(
        cells(
            row.scheme,
            number(row.psnr_before_db),
            number(row.psnr_after_db),
            ", ".join(row.float_layers) or "none",
        )
        for row in report.refined
    )
    return ReportTable(
        columns("Scheme", "PSNR before, dB#", "PSNR after, dB#", "Layers that stay float"), rows, REFINED_NOTE
    )


REFINED_NOTE = "Rounded in PyTorch as the file will round, against the float student on the same noises."


def latency(report: Report) -> ReportTable:
    """PyTorch and every file on this machine, one image at a time."""
    titles = columns(
        "What",
        "p50 ms#",
        "95 % interval#",
        "p90 ms#",
        "Load ms#",
        "First ms#",
        "Peak memory#",
        "Runs#",
        "Run by",
        "Timing",
    )
    rows = [_latency_row(row.label, "", row.latency) for row in report.torch_latency]
    rows += [_latency_row(row.label, row.file, row.latency) for row in report.artifacts]
    return ReportTable(titles, tuple(rows), worded(LATENCY_NOTE, report.data.kind) + _busy(report.machine))


LATENCY_NOTE = (
    "One image (batch 1) with one thread on the CPU of this machine, not on a phone. The interval is of the median, by "
    "a bootstrap over interleaved blocks of runs; load and first are of a fresh process, the import of the runtime not "
    "counted. Peak memory is of the whole process after its first image, with Python and what it imports where Python "
    "runs it."
)
BUSY = 0.5  # load average a thread, above which timings of a machine are doubtful


def _busy(machine: Mapping[str, Any]) -> str:
    """A warning where other work shared the machine; nothing where that is not known."""
    loads, threads = machine.get("load_average"), machine.get("threads")
    if not loads or not threads or loads[0] <= BUSY * threads:
        return ""
    return f" The machine was busy (load average {number(loads[0])} on {plural(threads, 'thread')}): compare with care."


def _latency_row(label: str, detail: str, latency: Latency) -> tuple[TableCell, ...]:
    interval = latency.p50_ci95_ms
    return cells(
        TableCell(label, detail=detail),
        number(latency.p50_ms),
        UNKNOWN if interval is None else f"{number(interval[0])} to {number(interval[1])}",
        number(latency.p90_ms),
        number(latency.load_ms),
        number(latency.first_ms),
        nbytes(latency.peak_rss_bytes),
        count(latency.runs) if latency.runs else UNKNOWN,
        latency.runtime or UNKNOWN,
        _timing(latency),
    )


def _timing(latency: Latency) -> TableCell:
    if latency.p50_ms is None:
        return TableCell("not measured", "warn", latency.reason)
    if latency.converged:
        return TableCell("noisy", "warn", latency.reason) if latency.reason else TableCell("steady", "ok")
    return TableCell("unsteady", "warn", latency.reason or "wider than ±2 % when its time was up")


def sizes(report: Report) -> ReportTable:
    """Parameters, multiply-accumulates and what folding removed."""
    rows = [("Parameters", count(report.parameters.teacher), count(report.parameters.student))]
    if report.macs is not None:
        rows.append(("Multiply-accumulates, one evaluation", count(report.macs.teacher), count(report.macs.student)))
    rows.append(("Parameters removed by folding the time input", UNKNOWN, count(report.fold.parameters_removed)))
    rows.append(("Largest relative error of folding", UNKNOWN, number(report.fold.max_relative_error, 2)))
    if report.parameters.teacher is None:
        return ReportTable(columns("", "Student#"), tuple(cells(name, own) for name, _, own in rows))
    return ReportTable(columns("", "Teacher#", "Student#"), tuple(cells(*row) for row in rows))


def data(report: Report) -> ReportTable:
    """The images that all of it was made from."""
    channels, *sides = report.data.image_shape
    shape = f"{sides[0]} values" if len(sides) == 1 else f"{sides[0]} {TIMES} {sides[1]}"
    kind = f"{report.data.kind.capitalize()}s"
    return _pairs(
        [
            ("Source", report.data.source),
            (f"{kind} for training", count(report.data.train)),
            (f"{kind} held out", count(report.data.heldout)),
            ("Shape", f"{shape}, {plural(channels, 'channel')}"),
            ("Classes", ", ".join(report.data.classes) or "none (unconditional)"),
        ]
    )


def machine(report: Report) -> ReportTable:
    """What it ran on. `*_bytes` are shown in units."""
    rows = [
        (key.removesuffix("_bytes").replace("_", " "), nbytes(item) if key.endswith("_bytes") else value(item))
        for key, item in report.machine.items()
    ]
    return _pairs(rows)


def versions(report: Report) -> ReportTable:
    return _pairs(report.versions.items())


def digests(report: Report) -> ReportTable:
    """The files by their content."""
    rows = tuple(cells(row.file, count(row.nbytes), row.sha256) for row in report.artifacts)
    return ReportTable(columns("File", "Bytes#", "SHA-256"), rows)


def stages(report: Report) -> ReportTable:
    rows = tuple(
        cells(
            row.name,
            seconds(row.seconds),
            TableCell("taken from an earlier run", "muted") if row.reused else "run",
            row.key,
        )
        for row in report.stages
    )
    return ReportTable(columns("Stage", "Time#", "How", "Key"), rows)


def _pairs(rows: Iterable[tuple[str, Any]]) -> ReportTable:
    return ReportTable(columns("", ""), tuple(cells(name, text) for name, text in rows))
