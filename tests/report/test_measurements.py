"""Measurements from elsewhere: figures under their own names, unknowns as dashes, a page that needs no network."""

import html
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from edgegen.profilers.measurement import Measurement
from edgegen.report.formats import UNKNOWN
from edgegen.report.measurements import plot, table, write_page

TITLES = ["What", "Device", "Latency ms", "which is the", "Other figures, ms", "Runs", "Verdict", "Source"]


def shown(one: Measurement) -> dict[str, str]:
    made = table([one])
    assert [column.title for column in made.columns] == TITLES
    return {column.title: cell.text for column, cell in zip(made.columns, made.rows[0], strict=True)}


def test_a_figure_keeps_its_source_s_name(made_up: ModuleType) -> None:
    first, _, phone, failed = made_up.elsewhere()
    assert (shown(first)["Latency ms"], shown(first)["which is the"]) == ("3.20", "median")
    assert shown(first)["Other figures, ms"] == "p90 4.20, mean 3.40"
    mean = shown(replace(phone, times_ms={"mean": 2.0, "max": 9.0}))
    assert (mean["Latency ms"], mean["which is the"], mean["Other figures, ms"]) == ("2.00", "mean", "max 9.00")
    assert (shown(phone)["Latency ms"], shown(phone)["which is the"]) == ("0.430", "estimate")
    assert (shown(failed)["Latency ms"], shown(failed)["which is the"], shown(failed)["Runs"]) == (UNKNOWN,) * 3


def test_only_known_samples_are_drawn_and_noisy_stays_noisy(made_up: ModuleType) -> None:
    rows = made_up.elsewhere()
    drawn = plot(rows)
    assert drawn is not None
    assert "net.onnx, 1 thread" in drawn.svg
    assert "3.20 ms (3.17 to 3.24), noisy" in drawn.svg
    assert "Galaxy" not in drawn.svg
    assert plot(rows[2:]) is None


def test_the_page_holds_all_and_asks_for_nothing(made_up: ModuleType, tmp_path: Path) -> None:
    rows = [replace(one, what=f"<b>{one.what}") for one in made_up.elsewhere()]
    write_page(tmp_path / "page.html", rows)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>\n")
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "<b>" not in page
    for one in rows:
        assert html.escape(one.what) in page
        assert one.source in page
    assert "prefers-color-scheme: dark" in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
