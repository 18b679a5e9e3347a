"""Workers that do not keep to the protocol: an answer of an older process, of another command, or no answer at all."""

import sys
from pathlib import Path

import pytest

from edgegen.errors import DeviceError
from edgegen.profilers.devices.device import NONCE, Command
from edgegen.profilers.devices.host import DEVICE, busy_of
from edgegen.profilers.timing.process import Worker

READY = '{{"nonce": "{nonce}", "number": 0, "event": "ready"}}'


def worker(tmp_path: Path, *lines: str) -> Worker:
    """A program that says these lines, the first unasked, each further one after a command; {nonce} is its own."""
    program = tmp_path / "runner.py"
    program.write_text(
        "import sys\n"
        f"for line in {lines!r}:\n"
        "    print(line.format(nonce=sys.argv[1]), flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    return Worker(DEVICE, Command((sys.executable, str(program), NONCE)), timeout_s=20.0).ready()


def test_an_answer_in_turn_is_taken(tmp_path: Path) -> None:
    one = worker(tmp_path, READY, '{{"nonce": "{nonce}", "number": 1, "event": "probe", "probe_ms": 2.0, "cpu_ms": 0}}')
    assert one.ask("probe")["probe_ms"] == 2.0
    one.stop()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{{"nonce": "0123456789abcdef", "number": 1, "event": "open"}}', "the answer is to another command"),
        ('{{"nonce": "{nonce}", "number": 0, "event": "open"}}', "the answer is to another command"),
        ('{{"nonce": "{nonce}", "number": 1, "event": "block"}}', "the answer is to another command"),
        ('{{"number": 1, "event": "open"}}', "the answer is not one of the protocol"),
        ('{{"nonce": "{nonce}", "number": 1, "ev', "the answer is not one of the protocol"),
        ("[1]", "the answer is not one of the protocol"),
    ],
)
def test_a_stale_or_broken_answer_is_refused(tmp_path: Path, line: str, message: str) -> None:
    one = worker(tmp_path, READY, line)
    with pytest.raises(DeviceError, match=message):
        one.ask("open", 1)
    one.stop()


def test_a_program_that_never_says_ready(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no answer within 1 s: the process was ended"):
        Worker(DEVICE, Command((sys.executable, "-c", "import time; time.sleep(60)", NONCE)), timeout_s=1.0).ready()


def test_a_byte_that_is_no_text_is_refused_at_once() -> None:
    says = "import sys, time; sys.stdout.buffer.write(b'\\xff\\n'); sys.stdout.flush(); time.sleep(60)"
    with pytest.raises(DeviceError, match=r"the answer is not one of the protocol: '\ufffd"):
        Worker(DEVICE, Command((sys.executable, "-c", says, NONCE)), timeout_s=60.0).ready()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_program_that_asks_for_more_memory_than_its_limit() -> None:
    program = f"import sys; print({READY!r}.format(nonce=sys.argv[1]), flush=True); sys.stdin.readline()"
    command = Command((sys.executable, "-c", f"{program}; b'x' * 2_000_000_000", NONCE), memory_limit=1_000_000_000)
    asked = Worker(DEVICE, command, timeout_s=20.0).ready()
    with pytest.raises(DeviceError, match=r"ended with exit code 1: MemoryError"):
        asked.ask("open", 1)


def test_how_busy_a_linux_is() -> None:
    """user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice, in hundredths of a second."""
    busy = busy_of("cpu  1000 200 300 9999 400 50 60 70 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert busy is not None
    assert busy.used_s == 10.0 + 2.0 + 3.0 + 0.5 + 0.6
    assert busy.stolen_s == 0.7
    assert busy_of("intr 5\n") is None
