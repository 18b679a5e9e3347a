"""Latencies that were measured elsewhere, beside each other: a table, and a page of their own."""

from collections.abc import Sequence
from pathlib import Path

from edgegen.profilers.measurement import Measurement, Statistic
from edgegen.report import environment
from edgegen.report.distribution import Spread, distribution_plot
from edgegen.report.formats import UNKNOWN, count, nbytes, number, percent
from edgegen.report.plots import Plot
from edgegen.report.tables import ReportTable, TableCell, Tone, cells, columns
from edgegen.support.extras import require
from edgegen.support.schema import utc_now
from edgegen.support.storage import write_bytes

LEADING: tuple[Statistic, ...] = ("p50", "mean", "estimate", "min", "p90")  # which figure of a source stands first
IN_WORDS: dict[Statistic, str] = {"p50": "median"}
TONE: dict[str, Tone] = {"ok": "ok", "noisy": "warn", "failed": "failed", "not judged": ""}
SHOWN_KINDS = 4
NOTE = (
    "Each row shows what its source says: a mean is no median, an estimate is a figure whose kind the source does not "
    "name, and what is unknown is a dash. Others do not measure by edgegen's protocol: warm-up, threads and "
    "temperature may differ. “traced” is a run with the runtime's own profiler, which slows down."
)


def leading(measurement: Measurement) -> Statistic | None:
    """The figure to show first; None where there is no latency."""
    return next((name for name in (*LEADING, *measurement.times_ms) if name in measurement.times_ms), None)


def table(rows: Sequence[Measurement]) -> ReportTable:
    """One row a measurement, in the order given."""
    titles = columns("What", "Device", "Latency ms#", "which is the", "Other figures, ms", "Runs#", "Verdict", "Source")
    return ReportTable(titles, tuple(_row(measurement) for measurement in rows), NOTE)


def _row(row: Measurement) -> tuple[TableCell, ...]:
    name = leading(row)
    interval = row.p50_ci95_ms
    others = ", ".join(f"{other} {number(ms)}" for other, ms in row.times_ms.items() if other != name)
    return cells(
        TableCell(row.what, detail=row.setting),
        row.device or UNKNOWN,
        number(None if name is None else row.times_ms[name]),
        TableCell(
            UNKNOWN if name is None else IN_WORDS.get(name, name),
            detail="" if interval is None else f"95 %: {number(interval[0])} to {number(interval[1])}",
        ),
        TableCell(others or UNKNOWN, detail=_beside(row)),
        count(row.runs),
        TableCell(row.verdict, TONE[row.verdict], "; ".join(row.notes)),
        TableCell(row.source, detail=row.file),
    )


def _beside(row: Measurement) -> str:
    """Loading, memory and operations, as far as they are known."""
    parts = [f"{name} {number(ms)} ms" for name, ms in (("load", row.load_ms), ("first", row.first_ms)) if ms]
    parts += [f"peak memory {nbytes(row.peak_bytes)}"] if row.peak_bytes is not None else []
    parts += [f"{kind} {percent(share)}" for kind, share in list(row.kinds.items())[:SHOWN_KINDS]]
    return ", ".join(parts)


def plot(rows: Sequence[Measurement], *, name: str = "elsewhere") -> Plot | None:
    """The spread of those whose samples are known."""
    return distribution_plot(
        name,
        [
            Spread(
                label=f"{row.what}, {row.device or row.source}",
                percentiles_ms=row.percentiles_ms,
                p50_ms=row.times_ms["p50"],
                p50_ci95_ms=row.p50_ci95_ms,
                kind="student",
                doubt="noisy" if row.verdict == "noisy" else "",
            )
            for row in rows
            if row.percentiles_ms is not None
        ],
    )


def write_page(path: Path, rows: Sequence[Measurement]) -> None:
    """One self-contained HTML page of the table and the plot. Raises MissingExtraError, StorageError."""
    require("report", purpose="the page")
    page = environment.make(html=True).get_template("measurements.html.jinja")
    now = utc_now()
    write_bytes(path, page.render(table=table(rows), plot=plot(rows), sources=_sources(rows), now=now).encode())


def _sources(rows: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(row.source for row in rows))
