"""Several processes train as one does: the curve, skipped steps, and a process that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import training_processes
from helpers import TINY, command, environment
from training_processes import BAD_STEP, METHODS, STEPS, STOPPED

from edgegen.errors import UsageError
from edgegen.support.storage import load_metadata, load_tensors
from edgegen.training.distributed import accelerator
from edgegen.training.log import read

SCRIPT = Path(training_processes.__file__)
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    # Without --multi_gpu, which does no harm where there is no GPU, it starts one process.
    "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"],
}


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_two_processes_give_the_curve_of_one(tmp_path: Path, launcher: str) -> None:
    variables = {**environment(), "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, *LAUNCHERS[launcher], str(SCRIPT), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    training_processes.main(tmp_path / "one")
    for method in METHODS:
        one, two = (read(tmp_path / folder / method / "log.jsonl") for folder in ("one", "two"))
        assert [line["step"] for line in one] == [line["step"] for line in two] == [10, 20, 30, 40]
        for line, other in zip(one, two, strict=True):
            assert {name: value for name, value in line.items() if name != "warnings"} == {
                name: pytest.approx(value, rel=1e-4) for name, value in other.items() if name != "warnings"
            }
    assert one[-1]["skipped"] == 1, f"step {BAD_STEP}, which only the last process found bad"
    metadata = load_metadata(tmp_path / "two" / "with_critic" / "checkpoint.safetensors")
    assert metadata == {"step": str(STEPS), "updates.critic": str(STEPS - 1), "updates.student": str(STEPS // 2)}
    both = [tmp_path / "two" / STOPPED, tmp_path / "one" / STOPPED]
    assert [[line["step"] for line in read(folder / "log.jsonl")] for folder in both] == [[0, 10, 20, 30]] * 2
    good = load_tensors(both[0] / "checkpoint-good.safetensors")  # of step 20
    ends = [load_tensors(both[0] / f"{process}.safetensors") for process in (0, 1)]
    for name, value in ends[0].items():
        assert torch.equal(value, good[f"net.student.{name}"])
        assert torch.equal(value, ends[1][name]), "the second process has gone back, too"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_with_one_message_and_a_checkpoint(tmp_path: Path, rank: int) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("steps = 40", "steps = 4000"))
    arguments = ["-m", "edgegen.cli.main", "run", "tiny.toml", "--to", "teacher"]
    with (tmp_path / "stderr").open("w") as stderr:
        run = subprocess.Popen(
            [sys.executable, *LAUNCHERS["torchrun"], *arguments], cwd=tmp_path, stderr=stderr, env=environment()
        )
        try:
            while not (checkpoints := list(tmp_path.glob("runs/tiny/teacher/*.partial/checkpoint.safetensors"))):
                assert run.poll() is None, (tmp_path / "stderr").read_text()
                time.sleep(0.05)
            os.kill(child_of_rank(run.pid, rank), signal.SIGKILL)
            assert run.wait(timeout=60) != 0
        finally:
            run.kill()
    errors = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("error: ")]
    (message,) = errors
    assert message.startswith("error: one of the 2 processes has ended or cannot be reached; finished stages and")
    done = int(load_metadata(checkpoints[0])["step"])
    assert done >= 10
    (tmp_path / "tiny.toml").write_text(TINY.replace("steps = 40", "steps = 4000"))
    status = subprocess.run(
        command("run", "tiny.toml", "--to", "teacher", "--dry-run"), cwd=tmp_path, env=environment(), check=False
    )
    assert status.returncode == 0, "the folder is not locked, and is whole"


def child_of_rank(parent: int, rank: int) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            if int(fields[1]) == parent and f"RANK={rank}".encode() in variables:
                return int(entry.name)
    raise AssertionError(f"no process of rank {rank}")


def test_a_divided_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator.cache_clear()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="FSDP is not supported: every process holds the whole networks"):
        accelerator("fp32")
