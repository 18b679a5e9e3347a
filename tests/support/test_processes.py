"""Programs that print too much, too little or too long: nothing waits for them, and no memory fills."""

import subprocess
import sys
import time
from typing import IO

import pytest

from edgegen.errors import DeviceError
from edgegen.support import processes


def started(code: str) -> "subprocess.Popen[bytes]":
    return processes.start([sys.executable, "-c", code], stdout=subprocess.PIPE)


def output_of(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def test_lines_come_as_they_are_written_and_the_last_may_have_no_end() -> None:
    process = started("import sys; print('a'); sys.stdout.buffer.write(b'\\xff\\n'); print('c', end='')")
    lines = processes.LineReader(output_of(process))
    assert [lines.line(20) for _ in range(5)] == [b"a\n", b"\xff\n", b"c", b"", b""]
    lines.close()
    processes.end(process)


def test_a_line_without_end_is_refused_and_a_flood_waits_in_the_pipe() -> None:
    process = started("import sys\nwhile True: sys.stdout.write('x' * 4096)")
    lines = processes.LineReader(output_of(process), longest=1 << 16)
    with pytest.raises(processes.StreamError, match=r"^sent a line of more than 65536 bytes$"):
        lines.line(20)
    processes.end(process)
    lines.close()
    flood = started("while True: print('x')")
    lines = processes.LineReader(output_of(flood))
    assert lines.line(20) == b"x\n"
    assert len(lines.rest) <= processes.BLOCK
    processes.end(flood)
    lines.close()


def test_a_silent_program_is_waited_for_as_long_as_was_said() -> None:
    process = started("import time; time.sleep(600)")
    lines = processes.LineReader(output_of(process))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        lines.line(0.2)
    assert 0.2 <= time.monotonic() - began < 10
    processes.end(process)
    lines.close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("while True: print('x' * 4096)", r"^box: it printed more than 16777216 bytes: it was ended$"),
        ("import time; time.sleep(600)", r"^box: no end within 1 s: it was ended$"),
        ("import os, time; os.close(1); time.sleep(600)", r"^box: no end within 1 s: it was ended$"),
        # A grandchild that keeps the pipes open.
        ("import subprocess; subprocess.Popen(['sleep', '600'])", r"^box: no end within 1 s: it was ended$"),
    ],
)
def test_a_program_that_does_not_keep_its_limits(code: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        processes.finish([sys.executable, "-c", code], name="box", timeout_s=30.0 if "print" in code else 1.0)


def test_a_program_to_its_end() -> None:
    code = "import sys; print('here'); sys.stderr.write('x' * 1_000_000 + 'last'); sys.exit(3)"
    finished = processes.finish([sys.executable, "-c", code], name="box", timeout_s=60)
    assert (finished.code, finished.stdout, len(finished.stderr)) == (3, "here\n", processes.TAIL)
    assert finished.stderr.endswith("xlast")
    with pytest.raises(DeviceError, match=r"^box: /none/such cannot be run: No such file or directory$"):
        processes.finish(["/none/such"], name="box", timeout_s=60)
