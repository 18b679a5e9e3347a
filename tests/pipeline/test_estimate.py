"""How long a run will take: every stage is known or says why not, and what cannot run is refused now."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, environment

from edgegen.errors import DataError, RecipeError
from edgegen.pipeline.estimate import estimate
from edgegen.pipeline.forecast import Forecast, StageTime, duration, total
from edgegen.pipeline.graph import select
from edgegen.recipe import Recipe, parse

TRAINED = ("teacher", "slim", "distill", "baseline", "extractor")
Edgegen = Callable[..., "subprocess.CompletedProcess[str]"]


def tiny(**tables: Any) -> Recipe:
    values: dict[str, Any] = tomllib.loads(TINY)
    for table, changes in tables.items():
        values[table] = {**values.get(table, {}), **changes}
    return parse(values, where="test")


def times(recipe: Recipe, base: Path) -> dict[str, StageTime]:
    return estimate(recipe, [stage.name for stage in select(recipe)], base=base, finished={}, limit_s=1.0)


def test_every_stage_of_the_plan_has_its_time(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    recipe = tiny()
    expected = times(recipe, tmp_path)
    assert list(expected) == [stage.name for stage in select(recipe)]
    assert all(row.seconds is not None and row.seconds >= 0 for row in expected.values())
    assert all("measured" in expected[stage].how and "a step" in expected[stage].how for stage in TRAINED)
    assert torch.equal(torch.get_rng_state(), state), "a run after it draws the same numbers"
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_a_teacher_has_its_times(tmp_path: Path) -> None:
    network = {"channels": [8], "blocks": 1}
    values = {"name": "alone", "slim": {"method": "flow_matching", "network": network, "steps": 9}}
    recipe = parse({**values, "distill": {"method": "flow_matching", "steps": 9}}, where="test")
    expected = times(recipe, tmp_path)
    assert "teacher" not in expected
    assert all(row.seconds is not None for row in expected.values())
    impossible = parse({**values, "slim": {**values["slim"], "network": {"channels": [8] * 6}}}, where="test")
    with pytest.raises(RecipeError, match="halve the image 5 times"):
        times(impossible.model_copy(update={"distill": recipe.distill}), tmp_path)


def test_time_is_in_proportion_to_the_steps(tmp_path: Path) -> None:
    """100 times the steps of the same network: far beyond what another program on the machine can do to it."""
    short, long = (times(tiny(teacher={"steps": steps}), tmp_path)["teacher"].seconds for steps in (40, 4000))
    assert short is not None
    assert long is not None
    assert 10 < long / short < 1000


def test_a_size_by_name_is_said_in_numbers(tmp_path: Path) -> None:
    values: dict[str, Any] = tomllib.loads(TINY)
    del values["teacher"]["model"]
    row = times(parse(values, where="test"), tmp_path)["teacher"]
    assert row.how.endswith("size auto is channels = [24, 48, 96], blocks = 1")


@pytest.mark.parametrize(
    ("tables", "stage", "why"),
    [
        ({"pairs": {"solver": "rk45"}}, "pairs", "the teacher decides how many steps rk45 takes"),
        ({"data": {"source": "hf:somebody/images"}}, "teacher", "the images are on the hub"),
        ({"recover": {}}, "refine", "rounding and recovery"),
    ],
)
def test_what_is_not_known_says_why(tmp_path: Path, tables: dict[str, Any], stage: str, why: str) -> None:
    row = times(tiny(**tables), tmp_path)[stage]
    assert row.seconds is None
    assert row.how.startswith("not estimated: ")
    assert why in row.how


def test_tuning_takes_its_time_where_a_file_of_the_stage_can_be_timed(tmp_path: Path) -> None:
    files = {"artifacts": ["onnx-fp32", "executorch-w8a8:bundled"], "tune_on": "host"}
    expected = estimate(tiny(export=files), ["export", "quantize"], base=tmp_path, finished={}, limit_s=1.0)
    assert (expected["export"].seconds, expected["export"].how.partition(":")[0]) == (1200.0, "tuned on host")
    assert expected["quantize"].how.startswith("as in the demo")


def test_what_would_end_the_run_later_ends_the_dry_run(tmp_path: Path) -> None:
    odd = np.zeros((40, 9, 9, 1), np.uint8)
    np.savez(tmp_path / "odd.npz", images=odd)
    with pytest.raises(RecipeError, match=r"channels \[8, 16\] halve the image 1 times, but 9 pixels cannot"):
        times(tiny(data={"source": "odd.npz"}), tmp_path)
    np.savez(tmp_path / "few.npz", images=odd[:5])
    with pytest.raises(DataError, match=r"the metrics need at least 4 of each"):
        times(tiny(data={"source": "few.npz"}), tmp_path)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"slim": {"keep": None, "network": {"channels": [8] * 5, "blocks": 1}}},
            "halve the image 4 times, but 8",
        ),
        ({"slim": {"students": 11}}, "at most 10"),
        ({"teacher": {"guidance": 2.0, "guidance_network": "absent"}}, "absent"),
    ],
    ids=["sides", "classes", "guidance"],
)
def test_networks_that_do_not_fit_are_refused_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: dict[str, Any], message: str
) -> None:
    """Also where the stage `extractor` is the first: the perceptual distance needs it."""
    monkeypatch.setattr("edgegen.pipeline.estimate.Trainer", lambda *_, **__: pytest.fail("a training was timed"))
    recipe = tiny(**{"distill": {"distance": "perceptual"}, **tables})
    stages = ["extractor", *(stage.name for stage in select(recipe, to="evaluate") if stage.name != "extractor")]
    with pytest.raises((RecipeError, DataError), match=message):
        estimate(recipe, stages, base=tmp_path, finished={}, limit_s=1.0)


def test_finished_stages_correct_what_is_left() -> None:
    forecast = Forecast({"teacher": StageTime(60, ""), "slim": StageTime(120, ""), "refine": StageTime(None, "")})
    assert forecast.left(["teacher", "slim"]) == "about 3 min"
    forecast.took("teacher", 120)  # twice as long as expected
    assert forecast.left(["slim", "refine"]) == "about 4 min and refine, of unknown length"
    assert total({"refine": StageTime(None, "")}) == "an unknown time"
    assert [duration(s) for s in (0.1, 59, 60, 7000, 7800)] == ["1 s", "59 s", "1 min", "117 min", "2 h 10 min"]


def test_a_dry_run_says_that_it_measures_and_how_long_the_run_takes(edgegen: Edgegen, tiny: Path) -> None:
    done = edgegen("run", tiny.name, "--dry-run", "--json")
    assert "timing a few steps of each training stage on this machine" in done.stderr
    rows = {row["stage"]: row for row in json.loads(done.stdout)["stages"]}
    assert rows["teacher"]["seconds"] > 0
    assert "a step" in rows["teacher"]["how"]


@pytest.mark.long
def test_a_dry_run_without_any_extra_prints_the_plan(tmp_path: Path) -> None:
    """The packages of all extras are hidden, as where the plain wheel alone is installed."""
    (tmp_path / "tiny.toml").write_text(TINY)
    code = """
import sys
from importlib.machinery import PathFinder
from edgegen.support import extras
absent = {package for packages in extras.EXTRAS.values() for package in packages}
find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in absent else find_spec(name, *rest)
extras.version_of = lambda package: None
sys.argv = ["edgegen", "run", "tiny.toml", *sys.argv[1:]]
from edgegen.cli.main import main
main()
"""
    command = [sys.executable, "-c", code]
    options: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "env": environment()}
    done = subprocess.run([*command, "--dry-run"], check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "in all: about" in done.stdout
    for extra in ("onnx", "executorch", "coreml", "report"):
        assert f"pip install 'edgegen[{extra}]'" in done.stderr
    assert subprocess.run(command, check=False, **options).returncode == 3
