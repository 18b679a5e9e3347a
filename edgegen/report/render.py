"""Writes report.json, report.md and report.html into a folder, each whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgegen.report import environment, formats, measurements, tables
from edgegen.report.distribution import Spread, distribution_plot
from edgegen.report.headline import chosen, headline
from edgegen.report.pictures import grid
from edgegen.report.plots import Plot, curve_plots, pareto_plot, quality_plot, tradeoff_plot
from edgegen.report.quality_table import quality_table
from edgegen.report.schema import Report
from edgegen.report.verdict import verdict
from edgegen.support.extras import require
from edgegen.support.storage import write_bytes, write_json

SHIPS = {  # what the files hold, in words
    "student": "the distilled student",
    "finished": "the student after its last training",
    "baseline": "the baseline: plain regression of the same network on the same pairs, not the distilled student",
    "slimmed": "the slimmed network, before distillation, in one step",
}


def write(
    folder: Path,
    report: Report,
    *,
    pictures: Mapping[str, NDArray[Any]],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    captions: Sequence[str] = (),
) -> None:
    """Makes report.json (the schema of `schema.py`), report.md and report.html (self-contained) in `folder`.

    `pictures` are uint8 (n, height, width, channels), or float32 signals (n, channels, length), number i of each from
    the same noise; their keys are "real", a net ("teacher"), a net at a number of steps ("teacher-20") or an artifact's
    file. `captions` name the columns, such as the classes. `curves` are (step, loss) by stage. Raises
    MissingExtraError, DataError, StorageError.
    """
    require("report", purpose="the report")
    content = report.model_copy(update={"verdict": verdict(report)}).to_json()
    report = Report.model_validate(content)  # what is shown is what is written: NaN has become unknown
    facts: dict[str, Any] = {
        "report": report,
        "figures": headline(report),
        "chosen": chosen(report),
        "ships": SHIPS[report.ships],
        "parities": _parities(report),
        "tables": tables,
        "quality": quality_table(report),
        "elsewhere": measurements.table(report.elsewhere),
        "recipe": formats.toml(report.recipe),
    }
    text = environment.make(html=False).get_template("report.md.jinja").render(facts)
    plots = {"curves": curve_plots(curves), "quality": quality_plot(report), "tradeoff": tradeoff_plot(report)}
    plots |= {
        "pareto": pareto_plot(report),
        "spread": _spread(report),
        "elsewhere": measurements.plot(report.elsewhere),
    }
    page = environment.make(html=True).get_template("report.html.jinja")
    shown = page.render(facts, grid=grid(report, pictures, captions), plots=plots)
    write_json(folder / "report.json", content)
    write_bytes(folder / "report.md", text.encode())
    write_bytes(folder / "report.html", shown.encode())


def _spread(report: Report) -> Plot | None:
    """Of PyTorch and every file that was timed."""
    torch = [(row.label, "torch", row.latency) for row in report.torch_latency]
    files = [(row.label, row.backend, row.latency) for row in report.artifacts]
    return distribution_plot(
        "spread",
        [
            Spread(
                label=label,
                percentiles_ms=latency.percentiles_ms,
                p50_ms=latency.p50_ms,
                p50_ci95_ms=latency.p50_ci95_ms,
                kind=kind,
                doubt="" if latency.converged else "unsteady",
            )
            for label, kind, latency in (*torch, *files)
            if latency.percentiles_ms is not None and latency.p50_ms is not None
        ],
    )


def _parities(report: Report) -> list[tuple[int, str]]:
    """How many artifacts have which parity: [(4, "ok"), (1, "failed")]."""
    statuses = [row.parity.status for row in report.artifacts]
    return [(statuses.count(status), status) for status in ("ok", "failed", "not checked") if status in statuses]
