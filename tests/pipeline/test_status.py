"""`edgegen status` of runs that are under way, killed, failed, finished, or from before there was a status file."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from edgegen.errors import TrainingError, UsageError
from edgegen.formats.stage_folder import RUN, STATUS
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.run_folder import RunFolder
from edgegen.pipeline.status import StatusFile, status_of
from edgegen.support.progress import Silent

Edgegen = Callable[..., "CompletedProcess[str]"]


def begin(folder: Path) -> StatusFile:
    """A run that is in the 30th of 120 steps of its stage slim."""
    part = folder / "slim" / "0123.partial"
    part.mkdir(parents=True, exist_ok=True)
    lines = [{"step": 20, "student": 0.5}, {"step": 30, "student": 0.25, "warnings": ["too high: 2.4"]}]
    (part / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = StatusFile(Silent(), folder / STATUS, ("data", "slim", "distill"), enabled=True)
    status.done("data")
    status.begin("slim", part, "about 6 min")
    record = {"label": "slim", "done": 30, "total": 120, "per_second": 2.0, "note": ""}
    status.update(record, last=True)
    return status


def test_a_run_under_way_and_the_same_one_after_it_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    run_folder = RunFolder(folder)
    with run_folder.open("mine"):
        begin(folder)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        facts = status_of(folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        assert (facts["state"], facts["stage"]) == ("running", "slim")
        assert facts["last"]["student"] == 0.25
        assert 35 < facts["left_s"] <= 45
        assert facts["warnings"] == {"slim": ["too high: 2.4"]}
        assert facts["stages"] == {"data": "done", "slim": "running", "distill": "to run"}
    facts = status_of(folder)
    assert (facts["state"], facts["left_s"], facts["last"]["step"]) == ("killed", None, 30)
    with run_folder.open("mine"):
        pass  # the status was read, and the folder is free


def test_a_failure_and_a_stop_are_said(tmp_path: Path) -> None:
    with RunFolder(tmp_path).open("x"):
        pass
    with pytest.raises(TrainingError), begin(tmp_path):
        raise TrainingError("slim: the loss is not finite at step 31")
    assert (status_of(tmp_path)["state"], status_of(tmp_path)["error"]) == (
        "failed",
        "slim: the loss is not finite at step 31",
    )
    with pytest.raises(KeyboardInterrupt), begin(tmp_path):
        raise KeyboardInterrupt
    assert (status_of(tmp_path)["state"], status_of(tmp_path)["stage"]) == ("stopped", "slim")


def test_a_finished_run_by_the_command(tiny: Path, edgegen: Edgegen) -> None:
    run_recipe(str(tiny), runs=tiny.parent / "runs", to="teacher")
    folder = tiny.parent / "runs" / "tiny"
    for name in (tiny.name, "tiny", str(folder)):
        done = edgegen("status", name)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["tiny: finished", "  done: data, teacher"]
    assert json.loads(edgegen("status", "tiny", "--json").stdout)["stages"] == {"data": "done", "teacher": "done"}
    (folder / STATUS).unlink()
    assert edgegen("status", "tiny").stdout.splitlines() == ["tiny: not running", "  done: data, teacher"]
    missing = edgegen("status", "other")
    assert missing.returncode == 2
    assert "runs/other: no run there (no run.json); give a recipe, a run's name, or its folder" in missing.stderr


def test_a_damaged_status_file_is_as_if_there_were_none(tmp_path: Path) -> None:
    with RunFolder(tmp_path).open("x"):
        pass
    (tmp_path / STATUS).write_text("{")
    assert status_of(tmp_path)["state"] == "not running"
    (tmp_path / RUN).unlink()
    with pytest.raises(UsageError, match="no run there"):
        status_of(tmp_path)
