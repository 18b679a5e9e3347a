"""Whatever ends a program: its processes are gone at once, and so are its temporary folders."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edgegen.support import isolation, scratch

WITHIN_S = 2.0
# A program that starts a child which reads no pipe, and itself one in a session of its own, as browsers do. "stuck": a
# vendor's code that holds the interpreter: no handler of a signal runs before it returns.
PROGRAM = """
import itertools, subprocess, sys, time
from edgegen.support import processes, scratch
from edgegen.support.signals import exit_codes
with exit_codes():
    folder = scratch.new_folder()
    inner = "import time; time.sleep(600)"
    popen = f"subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True)"
    outer = f"import subprocess, sys; {popen}.wait()"
    child = processes.start([sys.executable, "-c", outer], stdin=subprocess.DEVNULL)
    print(child.pid, folder, flush=True)
    if sys.argv[1] == "stuck":
        sum(itertools.repeat(1))
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def in_foreground() -> Iterator[None]:
    """Programs inherit which signals are ignored: those of a shell's background job, or of nohup, would stay alive."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def until(condition: Callable[[], object], timeout_s: float) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def environment() -> dict[str, str]:
    """That of a program which a user starts."""
    ours = isolation.environment()
    return {"PYTHONPATH": ours["PYTHONPATH"], **os.environ}


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (signal.SIGKILL, "works", -signal.SIGKILL),
        (signal.SIGTERM, "works", 143),
        (signal.SIGTERM, "stuck", -signal.SIGKILL),
        (signal.SIGINT, "works", 130),
        (signal.SIGHUP, "works", -signal.SIGHUP),
    ],
)
def test_nothing_is_left(number: signal.Signals, kind: str, code: int) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert program.stdout is not None
    pid, folder = program.stdout.readline().split()
    child = psutil.Process(int(pid))
    assert until(lambda: child.children(), 30)
    (grandchild,) = child.children()
    assert Path(os.fsdecode(folder)).is_dir()
    program.send_signal(number)
    assert until(lambda: program.poll() is not None and is_gone(child) and is_gone(grandchild), WITHIN_S)
    assert until(lambda: not Path(os.fsdecode(folder)).parent.exists(), WITHIN_S)
    _, errors = program.communicate()
    assert program.returncode == code
    assert (b"stopped; a recipe goes on" in errors) == (number == signal.SIGINT)
    assert b"Traceback" not in errors


def test_folders_of_the_dead_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the living, of users, and links stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = scratch.new_folder()
    code = "from edgegen.support import scratch; import os; print(scratch.new_folder(), flush=True); os._exit(0)"
    orphan = {**isolation.environment(), "TMPDIR": str(tmp_path)}  # a child's: it has no guardian
    printed = subprocess.run([sys.executable, "-c", code], env=orphan, capture_output=True, text=True, check=True)
    dead = Path(printed.stdout.strip())
    assert dead.is_dir()
    (tmp_path / "edgegen-results").mkdir()
    (tmp_path / "edgegen-linked").symlink_to(dead.parent)
    scratch.sweep(tmp_path)
    assert not dead.parent.exists()
    assert living.is_dir()
    assert (tmp_path / "edgegen-results").is_dir()
    assert (tmp_path / "edgegen-linked").is_symlink()


def test_a_second_interrupt_does_not_wait() -> None:
    code = """
import time
from edgegen.support.signals import exit_codes
with exit_codes():
    try:
        print("works", flush=True); time.sleep(600)
    finally:
        print("cleans", flush=True); time.sleep(600)
"""
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment())
    assert program.stdout is not None
    for word in (b"works\n", b"cleans\n"):
        assert program.stdout.readline() == word
        program.send_signal(signal.SIGINT)
    assert program.wait(WITHIN_S) == 130
    program.stdout.close()


def test_an_interrupt_that_a_vendor_turns_into_another_error_is_one_all_the_same() -> None:
    code = """
import os, signal
from edgegen.support.signals import exit_codes
with exit_codes():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("numpy: import failed") from None
"""
    program = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (program.returncode, program.stderr.count("\n")) == (130, 1)
