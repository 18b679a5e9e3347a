"""Child processes of any program: ended with this one, and read with limits of time and length."""

import contextlib
import io
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgegen.errors import DeviceError
from edgegen.support import guardian

BLOCK = 1 << 16
TAIL = 1 << 16  # bytes of what a program prints that are kept to explain its end
LONGEST_LINE = 1 << 22  # bytes of an answer: 20 ms of inferences that take 0.1 us each
MOST_OUTPUT = 1 << 24  # bytes that a program may answer with
REST_S = 1.0  # for what an ended program printed to be read; a grandchild may hold the pipe open


class StreamError(Exception):
    """A program printed more than its limit; the message says so as what the program did."""


@dataclass(frozen=True)
class Finished:
    """A program that ran to its end."""

    code: int
    stdout: str
    stderr: str


def start(argv: Sequence[str | Path], **options: Any) -> "subprocess.Popen[bytes]":
    """subprocess.Popen with its `options`, for a program that must not outlive this process. Raises OSError.

    It has a session of its own, so that Ctrl-C reaches this process alone, which ends it by `end`.
    """
    if guardian.is_child():  # whose session is ended with it
        return subprocess.Popen(argv, **options)
    process: subprocess.Popen[bytes] = subprocess.Popen(argv, start_new_session=True, **options)
    guardian.watch_process(process.pid)
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process of `start` with what it has started, if it still runs, and closes the pipe to it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if guardian.is_child():
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    guardian.forget_process(process.pid)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


class LineReader:
    """The lines of a pipe. What is not read stays in the pipe, where it holds up a program that prints too much."""

    def __init__(self, source: IO[bytes], *, longest: int = LONGEST_LINE) -> None:
        self.source, self.longest = source, longest
        self.rest = b""
        self.selector = selectors.DefaultSelector()
        self.selector.register(source, selectors.EVENT_READ)

    def line(self, timeout_s: float) -> bytes:
        """The next line with its end, b"" after the last. Raises TimeoutError, StreamError."""
        until = time.monotonic() + timeout_s
        searched = 0
        while (end_of_line := self.rest.find(b"\n", searched)) < 0:
            searched = len(self.rest)
            if searched > self.longest:
                raise StreamError(f"sent a line of more than {self.longest} bytes")
            block = _block(self.source, self.selector, until)
            if not block:
                line, self.rest = self.rest, b""
                return line
            self.rest += block
        line, self.rest = self.rest[: end_of_line + 1], self.rest[end_of_line + 1 :]
        return line

    def close(self) -> None:
        self.selector.close()
        self.source.close()


class Tail:
    """The last bytes of what a program prints, whatever its amount."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source, self.content = source, b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self.source:  # also where `close` did not wait for it
            while block := os.read(self.source.fileno(), BLOCK):
                self.content = (self.content + block)[-TAIL:]

    def clear(self) -> None:
        """Forget what was printed up to now."""
        self.content = b""

    def close(self) -> bytes:
        """Its content, once the program has ended; may be called twice."""
        self.thread.join(REST_S)
        return self.content


def finish(
    argv: Sequence[str | Path],
    *,
    name: str,
    timeout_s: float,
    stdin: Any = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    most: int = MOST_OUTPUT,
) -> Finished:
    """Runs a program to its end; at most `most` bytes of its answer go to `output`, or to the result.

    Raises DeviceError that begins with `name`: no start, no end in time, a longer answer. Raises OSError of `output`.
    """
    try:
        process = start(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    except OSError as e:
        raise DeviceError(f"{name}: {argv[0]} cannot be run: {e.strerror}") from e
    assert process.stdout is not None, "a pipe"
    assert process.stderr is not None, "a pipe"
    until, tail, kept = time.monotonic() + timeout_s, Tail(process.stderr), io.BytesIO()
    try:
        _copy(process.stdout, output or kept, most=most, until=until)
        process.wait(max(0.0, until - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired) as e:
        raise DeviceError(f"{name}: no end within {timeout_s:g} s: it was ended") from e
    except StreamError as e:
        raise DeviceError(f"{name}: it {e}: it was ended") from e
    finally:
        end(process)
        process.stdout.close()
        stderr = tail.close()
    stdout = kept.getvalue().decode(errors="replace")
    return Finished(process.returncode, stdout, stderr.decode(errors="replace"))


def _copy(source: IO[bytes], target: IO[bytes], *, most: int, until: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        nbytes = 0
        while block := _block(source, selector, until):
            nbytes += len(block)
            if nbytes > most:
                raise StreamError(f"printed more than {most} bytes")
            target.write(block)


def _block(source: IO[bytes], selector: selectors.BaseSelector, until: float) -> bytes:
    """What is there to read, b"" at the end. Raises TimeoutError."""
    if not selector.select(max(0.0, until - time.monotonic())):
        raise TimeoutError
    return os.read(source.fileno(), BLOCK)
