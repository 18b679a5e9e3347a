"""The command line: help with an example for every command, exit codes, data on stdout and errors on stderr."""

import importlib.metadata
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TINY
from typer.testing import CliRunner

from edgegen.cli.main import app

Edgegen = Callable[..., "subprocess.CompletedProcess[str]"]
COMMANDS = sorted(command.name or "" for command in app.registered_commands)


def test_the_commands_are_these() -> None:
    stages = ["train", "pairs", "slim", "distill", "evaluate", "quantize", "export", "verify", "profile", "report"]
    assert (
        sorted(
            [
                "app",
                "bundle",
                "run",
                "sample",
                "doctor",
                "inspect",
                "sensitivity",
                "compare",
                "devices",
                "plan",
                "serve-bench",
                "methods",
                "status",
                "tune",
                *stages,
            ]
        )
        == COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: edgegen {command}" in result.output
    assert "--json" in result.output


def test_a_mistyped_recipe_key(edgegen: Edgegen, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(TINY + "[distil]\nsteps = 3\n")
    done = edgegen("run", "bad.toml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: bad.toml: distil: no key 'distil'")
    assert "Did you mean 'distill'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_unknown_options_and_commands_are_usage_errors(edgegen: Edgegen) -> None:
    assert edgegen("run", "digits", "--fast").returncode == 2
    assert edgegen("rum", "digits").returncode == 2
    assert edgegen("run", "digits", "--to", "slimm").returncode == 2


@pytest.mark.long
def test_dry_run_prints_the_resolved_recipe_and_runs_nothing(edgegen: Edgegen, tiny: Path) -> None:
    done = edgegen("run", tiny.name, "--dry-run", "--json", "--to", "slim")
    plan = json.loads(done.stdout)
    assert plan["recipe"]["distill"]["distance"] == "pseudo_huber"
    assert [row["stage"] for row in plan["stages"]] == ["data", "teacher", "pairs", "slim"]
    assert {row["state"] for row in plan["stages"]} == {"to run"}
    assert not (tiny.parent / "runs").exists()
    assert "teacher" in edgegen("run", tiny.name, "--dry-run").stdout


@pytest.mark.long
def test_stages_run_once_and_an_unchanged_recipe_runs_nothing(edgegen: Edgegen, tiny: Path) -> None:
    first = edgegen("pairs", tiny.name, "--json")
    assert first.returncode == 0, first.stderr
    rows = json.loads(first.stdout)["stages"]
    assert [(row["stage"], row["reused"]) for row in rows] == [("data", False), ("teacher", False), ("pairs", False)]
    again = edgegen("run", tiny.name, "--to", "pairs", "--json")
    assert all(row["reused"] for row in json.loads(again.stdout)["stages"])
    assert "nothing to do: all 3 stages are up to date" in again.stderr
    tiny.write_text(TINY.replace("steps = 2\n", "steps = 3\n", 1))
    third = json.loads(edgegen("pairs", tiny.name, "--json").stdout)["stages"]
    assert [row["reused"] for row in third] == [True, True, False]
    forced = json.loads(edgegen("pairs", tiny.name, "--json", "--force").stdout)["stages"]
    assert [row["reused"] for row in forced] == [True, True, False]
    events = list((tiny.parent / "runs" / "tiny" / "teacher" / "latest" / "tensorboard").glob("events.*"))
    assert events, "training writes TensorBoard files"


def test_a_run_folder_of_another_recipe_is_refused(edgegen: Edgegen, tiny: Path) -> None:
    assert edgegen("run", tiny.name, "--to", "data").returncode == 0
    run = tiny.parent / "runs" / "tiny" / "run.json"
    run.write_text(run.read_text().replace('"name": "tiny"', '"name": "other"', 1))
    done = edgegen("run", tiny.name, "--to", "data")
    assert done.returncode == 2
    assert "was made by the recipe 'other'" in done.stderr


def test_unusable_data_leave_no_partial_result(edgegen: Edgegen, tiny: Path) -> None:
    (tiny.parent / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    tiny.write_text(TINY + '[data]\nsource = "cut.npz"\n')
    done = edgegen("run", tiny.name)
    assert done.returncode == 2
    assert "cut.npz" in done.stderr
    assert "Traceback" not in done.stderr
    tiny.write_text(TINY + '[data]\nsource = "cat.npz"\n')
    done = edgegen("run", tiny.name)
    assert done.returncode == 2
    assert "Did you mean 'cut.npz'" in done.stderr


def test_resolutions_that_do_not_halve(edgegen: Edgegen, tiny: Path) -> None:
    tiny.write_text(TINY.replace("channels = [8, 16]", "channels = [8, 8, 8, 8, 8]"))
    done = edgegen("run", tiny.name)
    assert done.returncode == 2
    assert "halve the image 4 times, but 8 pixels cannot" in done.stderr


def test_a_loss_that_is_not_finite(edgegen: Edgegen, tiny: Path) -> None:
    tiny.write_text(
        TINY.replace("batch = 16\ncheckpoint_every = 10", "batch = 16\nlearning_rate = 1e38\ndecay = 'none'")
    )
    done = edgegen("train", tiny.name)
    assert done.returncode == 1
    assert "teacher: the loss is not finite at step" in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_needs_a_budget_and_the_help_of_slim_names_it(edgegen: Edgegen) -> None:
    assert "`edgegen plan`" in " ".join(edgegen("slim", "--help").stdout.split())
    lacking = edgegen("plan", "digits")
    assert lacking.returncode == 2
    assert "Missing option '--budget'" in lacking.stderr


def test_no_command_shows_the_help_with_every_command_and_the_exit_codes() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "Start with: edgegen run digits" in result.output
    assert "Exit codes: 0 ok, 1 failed, 2 usage or recipe" in " ".join(result.output.split())
    listed = {line.split()[0] for line in result.output.split("Commands:")[1].splitlines() if line.strip()}
    assert set(COMMANDS) <= listed


def test_the_version_needs_no_command() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    first, *others = done.stdout.splitlines()
    assert first == f"edgegen {importlib.metadata.version('edgegen')}"
    assert any(line.startswith("torch 2.") for line in others)
