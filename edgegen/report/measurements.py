"""Latencies that were measured elsewhere, beside each other: a table, and a page of their own."""

from collections.abc import Sequence
from pathlib import Path

from edgegen.report import environment
from edgegen.report.distribution import Spread, distribution_plot
from edgegen.report.formats import UNKNOWN, count, nbytes, number, percent
from edgegen.report.plots import Plot
from edgegen.report.tables import ReportTable, TableCell, Tone, cells, columns
from edgegen.support.extras import require
from edgegen.support.schema import utc_now
from edgegen.support.storage import write_bytes
from edgegen.types import Measurement, Statistic

LEADING: tuple[Statistic, ...] = ("p50", "mean", "estimate", "min", "p90")  # which figure of a source stands first
IN_WORDS: dict[Statistic, str] = {"p50": "median"}
TONE: dict[str, Tone] = {"ok": "ok", "noisy": "warn", "failed": "failed", "not judged": ""}
SHOWN_KINDS = 4
NOTE = (
    "Each row says what its source says: a mean is no median, an estimate is a figure whose kind the source does not "
    "name, and what it does not tell is a dash. Others do not measure by edgegen's protocol: warm-up, threads and "
    "temperature may differ. “traced” is a run with the runtime's own profiler, which slows down."
)


def leading(one: Measurement) -> Statistic | None:
    """The figure to show first; None where there is no latency."""
    return next((name for name in (*LEADING, *one.times_ms) if name in one.times_ms), None)


def table(rows: Sequence[Measurement]) -> ReportTable:
    """One row a measurement, in the order given."""
    titles = columns("What", "Device", "Latency ms#", "which is the", "Other figures, ms", "Runs#", "Verdict", "Source")
    return ReportTable(titles, tuple(_row(one) for one in rows), NOTE)


def _row(one: Measurement) -> tuple[TableCell, ...]:
    name = leading(one)
    interval = one.p50_ci95_ms
    others = ", ".join(f"{other} {number(ms)}" for other, ms in one.times_ms.items() if other != name)
    return cells(
        TableCell(one.what, detail=one.setting),
        one.device or UNKNOWN,
        number(None if name is None else one.times_ms[name]),
        TableCell(
            UNKNOWN if name is None else IN_WORDS.get(name, name),
            detail="" if interval is None else f"95 %: {number(interval[0])} to {number(interval[1])}",
        ),
        TableCell(others or UNKNOWN, detail=_beside(one)),
        count(one.runs),
        TableCell(one.verdict, TONE[one.verdict], "; ".join(one.notes)),
        TableCell(one.source, detail=one.file),
    )


def _beside(one: Measurement) -> str:
    """Loading, memory and operations, as far as they are known."""
    told = [f"{name} {number(ms)} ms" for name, ms in (("load", one.load_ms), ("first", one.first_ms)) if ms]
    told += [f"peak memory {nbytes(one.peak_bytes)}"] if one.peak_bytes is not None else []
    told += [f"{kind} {percent(share)}" for kind, share in list(one.kinds.items())[:SHOWN_KINDS]]
    return ", ".join(told)


def plot(rows: Sequence[Measurement], *, name: str = "elsewhere") -> Plot | None:
    """The spread of those whose samples are known."""
    return distribution_plot(
        name,
        [
            Spread(
                label=f"{one.what}, {one.device or one.source}",
                percentiles_ms=one.percentiles_ms,
                p50_ms=one.times_ms["p50"],
                p50_ci95_ms=one.p50_ci95_ms,
                kind="student",
                doubt="noisy" if one.verdict == "noisy" else "",
            )
            for one in rows
            if one.percentiles_ms is not None
        ],
    )


def write_page(path: Path, rows: Sequence[Measurement]) -> None:
    """One self-contained HTML page of the table and the plot. Raises MissingExtraError, StorageError."""
    require("report", purpose="the page")
    page = environment.make(html=True).get_template("measurements.html.jinja")
    now = utc_now()
    write_bytes(path, page.render(table=table(rows), plot=plot(rows), sources=_sources(rows), now=now).encode())


def _sources(rows: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(one.source for one in rows))
