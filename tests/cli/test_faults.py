"""Faults of the machine as a user meets them: a full disk, a place where nobody may write, two runs at once."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TINY, command, environment

Edgegen = Callable[..., "subprocess.CompletedProcess[str]"]


def on_a_small_disk(size: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """`edgegen train` with its run folder on a tmpfs of the given size, seen by that process only."""
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


@pytest.mark.parametrize("size", ["40k", "200k", "300k"])
def test_a_full_disk_is_told_in_plain_words(tiny: Path, size: str) -> None:
    done = on_a_small_disk(size, tiny.parent)
    assert done.returncode == 1
    assert "disk full: " in done.stderr or "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys, where even root may not write")
def test_a_place_where_nobody_may_write(edgegen: Edgegen, tiny: Path) -> None:
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
        first.stderr.readline()  # it has the folder now
        second = edgegen("train", tiny.name)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 1
    assert "another edgegen is working in this run folder" in second.stderr


def test_ctrl_c_says_how_to_go_on(tiny: Path) -> None:
    import signal

    tiny.write_text(TINY.replace("steps = 40", "steps = 100000"))
    process = subprocess.Popen(
        command("train", tiny.name),
        cwd=tiny.parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell hands down "ignored"
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


def test_a_full_or_closed_output_is_told_without_a_traceback(tiny: Path) -> None:
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
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.slow
def test_two_processes(tiny: Path) -> None:
    """Two processes on CPU by torchrun (`accelerate launch --cpu` starts only one): every stage once, all shards."""
    import sys

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
