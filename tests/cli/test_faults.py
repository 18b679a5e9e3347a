"""Faults of the machine as a user meets them: a full disk, a read-only place, two runs at once, Ctrl-C."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TINY, command, environment

Edgegen = Callable[..., "subprocess.CompletedProcess[str]"]


def on_a_small_disk(size: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """`edgegen train` with its run folder on a tmpfs of the given size, mounted for that process only."""
    place = folder / "small"
    place.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs "$1" && shift && exec "$@"'
    trial = subprocess.run(["unshare", "-m", "sh", "-c", mount, "sh", place, "true"], capture_output=True, check=False)
    if trial.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {trial.stderr.decode().strip()}")
    run = command("train", "tiny.toml", "--runs", place)
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", str(place), *run],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


@pytest.mark.parametrize(("size", "file"), [("40k", "images"), ("200k", "checkpoint"), ("300k", "checkpoint")])
def test_a_full_disk_names_the_file_and_says_what_to_do(tiny: Path, size: str, file: str) -> None:
    done = on_a_small_disk(size, tiny.parent)
    assert done.returncode == 1
    message = rf"error: disk full: \d+ bytes free at .*, too few to write {file}\.safetensors .*; free some space .*"
    assert re.fullmatch(message, done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys, where root cannot write either")
def test_a_place_without_write_permission(edgegen: Edgegen, tiny: Path) -> None:
    done = edgegen("run", tiny.name, "--runs", "/sys/edgegen")
    assert done.returncode == 1
    assert "no permission to write /sys/edgegen" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_runs_of_one_recipe_at_once(tiny: Path, edgegen: Edgegen) -> None:
    tiny.write_text(TINY.replace("steps = 40", "steps = 100000"))
    first = subprocess.Popen(
        command("train", tiny.name), cwd=tiny.parent, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env=environment(),
    )  # fmt: skip
    try:
        assert first.stderr is not None
        first.stderr.readline()  # now it holds the lock of the run folder
        second = edgegen("train", tiny.name)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 1
    assert "another edgegen is working in this run folder" in second.stderr


def test_ctrl_c_says_how_to_resume(tiny: Path) -> None:
    tiny.write_text(TINY.replace("steps = 40", "steps = 100000"))
    process = subprocess.Popen(
        command("train", tiny.name),
        cwd=tiny.parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell passes "ignored" on
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("teacher ..."):
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from the last checkpoint" in rest
    assert "Traceback" not in rest


@pytest.mark.long
@pytest.mark.parametrize("stage", ["teacher", "pairs"])
def test_a_run_folder_that_is_removed_meanwhile(tiny: Path, stage: str) -> None:
    """In training, with its log and TensorBoard's; and in a stage whose files make their folders again."""
    many = {"teacher": ("steps = 40", "steps = 100000"), "pairs": ("steps = 2\n", "steps = 60\n")}[stage]
    tiny.write_text(TINY.replace(*many))
    process = subprocess.Popen(
        command("train" if stage == "teacher" else "pairs", tiny.name),
        cwd=tiny.parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    folder = tiny.parent / "runs" / "tiny"
    pattern = "*.partial/checkpoint.safetensors" if stage == "teacher" else "*.partial/pairs-*"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not any((folder / stage).glob(pattern)):
        time.sleep(0.005)
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)  # it may get a new file meanwhile
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    message = "error: runs/tiny: was removed while edgegen worked in it; what is there now is no whole run"
    assert said.splitlines()[-1].startswith(message)
    assert "Traceback" not in said


def test_a_full_output_is_an_error_without_a_traceback(tiny: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("run", tiny.name, "--dry-run", "--json"),
            cwd=tiny.parent,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    timing, error = done.stderr.splitlines()
    assert timing.startswith("timing a few steps of each training stage")
    assert error == "error: No space left on device"


@pytest.mark.slow
def test_two_processes(tiny: Path) -> None:
    """By torchrun, as `accelerate launch --cpu` starts one process: every stage runs once, and all shards exist."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "-m", "edgegen.cli.main", "run", tiny.name, "--to", "evaluate"],
        cwd=tiny.parent,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("teacher: done") == 1
    run = tiny.parent / "runs" / "tiny"
    assert len(list((run / "pairs" / "latest").resolve().glob("pairs-*.safetensors"))) == 3
    assert (run / "evaluate" / "latest" / "quality.json").exists()
    assert not list(run.rglob("*.partial"))
