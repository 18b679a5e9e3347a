"""Bench of `edgegen plan`: does it find students that use a latency budget up, and in what time?

    python examples/bench_plan.py [--quick] [--json]

Three budgets at once, for a teacher of 6.2 M parameters and images of 32x32, on this machine. Goals: p50 of each choice
is at most 10 % below its budget, and the search takes at most 10 minutes. Afterwards the chosen files are measured once
more, in a separate run. As ONNX files, and without `--quick` as 8-bit ExecuTorch files, which take longer to export.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.devices.host_info import probe
from edgegen.profilers.files.profile import profile_files
from edgegen.search.plan import Request, search_students
from edgegen.search.results import Answer, SearchResult
from edgegen.search.selection import BAND
from edgegen.support.progress import Plain

BUDGETS_MS = (2.0, 4.0, 8.0)
MINUTES = 10.0
RECIPE = """
name = "bench"
[data]
source = "noise.npz"
[teacher]
model = { channels = [96, 192, 192], blocks = 2, attention = [1] }
[slim]
keep = 0.3
[export]
artifacts = ["onnx-fp32", "executorch-w8a8"]
"""

Row = dict[str, Any]


def timed_plan(folder: Path, artifact: str, minutes: float) -> tuple[SearchResult, float]:
    """The plan, and how many minutes it took from the recipe to its files."""
    began = time.monotonic()
    request = Request(str(folder / "bench.toml"), BUDGETS_MS, artifact=artifact, minutes=minutes, runs=folder / "runs")
    plan = search_students(request, progress=Plain())
    return plan, (time.monotonic() - began) / 60


def second_p50_ms(folder: Path, plan: SearchResult) -> dict[str, float | None]:
    """p50 of the chosen files in a separate run, by the shape's label."""
    labels = sorted({answer.label for answer in plan.answers if answer.label is not None})
    backend, _, scheme = plan.artifact.partition("-")
    files = [next(folder.glob(f"runs/bench/plan/files/*/{label}_{backend}_{scheme}.*")) for label in labels]
    results = profile_files(files, DEVICE, progress=Plain()).results if files else ()
    return {
        label: None if result.latency is None else result.latency.p50_ms
        for label, result in zip(labels, results, strict=True)
    }


def row_of(plan: SearchResult, answer: Answer, again: dict[str, float | None]) -> Row:
    chosen = plan.chosen(answer)
    known = {"artifact": plan.artifact, "budget_ms": answer.budget_ms, "outcome": answer.outcome}
    if chosen is None or answer.label is None:
        return {**known, "label": None, "p50_ms": None, "again_ms": None}
    figures = {"parameters": chosen.parameters, "macs": chosen.macs, "p50_ms": chosen.p50_ms}
    return {**known, "label": answer.label, **figures, "again_ms": again[answer.label], "verdict": chosen.verdict}


def bench(artifact: str, folder: Path, minutes: float = MINUTES) -> tuple[list[Row], list[Row]]:
    """Rows, one for each budget, and goals; `minutes` is the limit of the search."""
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)  # the search uses their shape alone
    np.savez(folder / "noise.npz", images=images)
    (folder / "bench.toml").write_text(RECIPE)
    plan, minutes_taken = timed_plan(folder, artifact, minutes)
    again = second_p50_ms(folder, plan)
    rows = [row_of(plan, answer, again) for answer in plan.answers]
    goals = []
    for row in rows:
        low = (1 - BAND) * row["budget_ms"]
        p50_ms = row["p50_ms"]
        goals.append(
            {
                "name": f"plan, {artifact}: p50 ms under {row['budget_ms']:g} ms",
                "target": f"{low:g} to {row['budget_ms']:g}",
                "value": p50_ms,
                "met": p50_ms is not None and low <= p50_ms <= row["budget_ms"],
            }
        )
    name = f"plan, {artifact}: minutes for {len(rows)} budgets, {len(plan.measured)} shapes measured"
    goals.append({"name": name, "target": f"<= {MINUTES:g}", "value": minutes_taken, "met": minutes_taken <= MINUTES})
    return rows, goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ONNX alone: at most 10 minutes")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    options = parser.parse_args()
    rows: list[Row] = []
    goals: list[Row] = []
    for artifact in ("onnx-fp32",) if options.quick else ("onnx-fp32", "executorch-w8a8"):
        with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
            artifact_rows, artifact_goals = bench(artifact, Path(folder))
        rows += artifact_rows
        goals += artifact_goals
    if options.json:
        print(json.dumps({"machine": probe(), "goals": goals, "rows": rows}, indent=2))
        return
    print("| what | goal | value | |\n|---|---|---|---|")
    for goal in goals:
        value = "none" if goal["value"] is None else f"{goal['value']:.3g}"
        print(f"| {goal['name']} | {goal['target']} | {value} | {'met' if goal['met'] else 'NOT met'} |")
    print("\n| artifact | budget ms | shape | parameters | MACs | p50 ms | measured again | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        if row["label"] is None:
            print(f"| {row['artifact']} | {row['budget_ms']:g} | none fits | | | | | |")
            continue
        again = "failed" if row["again_ms"] is None else f"{row['again_ms']:.3g}"
        print(
            f"| {row['artifact']} | {row['budget_ms']:g} | {row['label']} | {row['parameters']:,} | {row['macs']:,} "
            f"| {row['p50_ms']:.3g} | {again} | {row['verdict']} |"
        )
    machine = probe()
    print(f"\n{machine['cpu']}, {machine['threads']} threads, {machine['os']}")


if __name__ == "__main__":
    main()
