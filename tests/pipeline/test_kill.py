"""kill -9 at any moment, then the same command: it goes on, and ends with the bits of a run that nobody disturbed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TINY, command, environment
from safetensors.numpy import load_file

Edgegen = Callable[..., "subprocess.CompletedProcess[str]"]
CHECKPOINTED = ("teacher", "slim", "distill", "baseline")
WHOLE_RUN = ("data", *CHECKPOINTED[:1], "pairs", *CHECKPOINTED[1:], "extractor", "evaluate")
LATER = ("export", "quantize", "verify", "profile", "report")


def kill_in(stage: str, folder: Path, *arguments: str) -> bool:
    """Starts the command and kills it as soon as `stage` is under way (with a checkpoint, where it has any).

    False when the stage was over before it could be killed.
    """
    process = subprocess.Popen(
        command(*arguments), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    pattern = "*.partial/checkpoint.safetensors" if stage in CHECKPOINTED else "*.partial"
    place = folder / "runs" / "tiny" / stage
    try:
        while process.poll() is None:
            if any(place.glob(pattern)):
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return any(place.glob("*.partial"))
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    return False


def weights(folder: Path, stages: tuple[str, ...]) -> dict[str, bytes]:
    """Every safetensors file of the finished stages, by its place in the run folder."""
    run = folder / "runs" / "tiny"
    return {
        str(path.relative_to(run)): path.read_bytes()
        for stage in stages
        for path in sorted((run / stage / "latest").resolve().rglob("*.safetensors"))
    }


def disturbed_and_not(tmp_path: Path, stages: tuple[str, ...], to: str) -> tuple[Path, Path, list[str]]:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        (folder / "tiny.toml").write_text(
            TINY.replace("steps = 24", "steps = 160").replace("steps = 40", "steps = 200")
        )
    arguments = ("run", "tiny.toml", "--to", to)
    killed = [stage for stage in stages if kill_in(stage, broken, *arguments)]
    for folder in (whole, broken):
        done = subprocess.run(
            command(*arguments), cwd=folder, capture_output=True, text=True, env=environment(), check=False
        )
        assert done.returncode == 0, done.stderr
        assert not list((folder / "runs").rglob("*.partial"))
    return whole, broken, killed


@pytest.mark.slow
def test_training_killed_in_every_stage_ends_with_the_same_bits(tmp_path: Path) -> None:
    stages = ("teacher", "pairs", "slim", "distill")
    whole, broken, killed = disturbed_and_not(tmp_path, stages, "distill")
    assert set(killed) >= {"teacher", "slim", "distill"}
    expected, got = weights(whole, stages), weights(broken, stages)
    assert expected == got
    assert any("generator/diffusion_pytorch_model" in name for name in expected)
    steps = [
        json.loads(line)["step"] for line in (broken / "runs/tiny/teacher/latest/log.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_the_whole_run_killed_in_every_stage(tmp_path: Path) -> None:
    whole, broken, killed = disturbed_and_not(tmp_path, WHOLE_RUN + LATER, "report")
    assert set(killed) >= {*CHECKPOINTED, "extractor", "evaluate", *LATER}
    assert weights(whole, WHOLE_RUN) == weights(broken, WHOLE_RUN)
    reports = [json.loads((folder / "runs/tiny/report/latest/report.json").read_text()) for folder in (whole, broken)]
    assert reports[0]["quality"] == reports[1]["quality"]
    assert [row["sha256"] for row in reports[0]["artifacts"]] == [row["sha256"] for row in reports[1]["artifacts"]]


@pytest.mark.long
def test_the_end_of_a_killed_run_is_the_checkpoint_and_not_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "tiny.toml").write_text(TINY.replace("steps = 40", "steps = 4000").replace("every = 10", "every = 500"))
    assert kill_in("teacher", folder, "train", "tiny.toml")
    (partial,) = (folder / "runs" / "tiny" / "teacher").glob("*.partial")
    state = load_file(partial / "checkpoint.safetensors")
    assert any(name.startswith("adam.student.") for name in state)
    from edgegen.support.storage import load_metadata

    done = int(load_metadata(partial / "checkpoint.safetensors")["step"])
    assert done % 500 == 0
    assert done >= 500
