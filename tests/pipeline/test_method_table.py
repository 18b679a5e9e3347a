"""The list of training methods: of the registry alone, with costs that can be counted by hand."""

import importlib
import json
import subprocess
from pathlib import Path

import pytest
from helpers import command, environment

from edgegen.pipeline.method_table import BENCH, method_rows
from edgegen.registry import names

ROOT = Path(__file__).parents[2]


def test_every_method_is_listed_with_its_cost() -> None:
    rows = {row.name: row for row in method_rows()}
    assert rows.keys() == names("objective").keys()
    assert all(row.forward_passes >= 2 and "arXiv:" in row.paper for row in rows.values())
    plain, guided = rows["pair_regression"], rows["flow_guided_distillation"]
    assert 2.7 < plain.forward_passes <= 3, "a forward pass and twice that for the gradient, less at the first layer"
    # Two forward passes with gradient, and one of the slimmed network.
    assert abs(guided.forward_passes - (2 * plain.forward_passes + 1)) < 0.05
    assert plain.stages == ("slim", "distill", "finish")
    assert guided.stages == ("distill", "finish")
    assert rows["self_distillation"].stages == ("recover",)


@pytest.mark.long
def test_the_command_prints_them() -> None:
    done = subprocess.run(
        [*command("methods", "--json")], capture_output=True, text=True, env=environment(), check=True
    )
    rows = json.loads(done.stdout)["methods"]
    assert {"name", "stages", "needs", "paper", "extra_networks", "forward_passes", "reached"} == set(rows[0])


def test_what_methods_reached_is_what_the_bench_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    bench = importlib.import_module("bench_methods")
    rows = json.loads((ROOT / "examples" / "bench_methods.json").read_text())["rows"]
    assert json.loads(BENCH.read_text()) == bench.best_ways(rows)
    assert {result["method"] for result in bench.best_ways(rows)} <= names("objective").keys()
