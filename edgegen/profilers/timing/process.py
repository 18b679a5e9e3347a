"""This machine's end of a worker: start it on a device, send it commands, explain why it died, end it."""

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import psutil

from edgegen.errors import DeviceError
from edgegen.profilers.devices.device import Channel, Command, Device
from edgegen.support import isolation, processes
from edgegen.support.printable import printable

GRACE_S = 5.0  # for a worker to end by itself once its input is closed
NUMBERS = {"open": ("load_ms", "first_ms", "cpu_ms"), "block": ("cpu_ms",), "probe": ("probe_ms", "cpu_ms")}
COUNTS = ("threads", "peak_rss_bytes")
MOST = 1e15  # no time in ms and no memory in bytes is more


class Pipes:
    """The channel to a process of this machine, which may be the near end of one elsewhere: `end_there` ends that."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        memory_limit: int | None = None,
        end_there: Callable[[], object] = lambda: None,
    ) -> None:
        self.end_there = end_there
        self.process = processes.start(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        if memory_limit is not None and sys.platform == "linux":
            # By the system: reading its memory time and again would disturb what is measured. What asks for more gets
            # no memory, which its runtime reports or dies of.
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self.process.pid).rlimit(psutil.RLIMIT_DATA, (memory_limit, memory_limit))
        assert self.process.stdout is not None, "a pipe"
        assert self.process.stderr is not None, "a pipe"
        self.lines, self.errors = processes.LineReader(self.process.stdout), processes.Tail(self.process.stderr)
        self.ended = ""

    def send(self, line: str) -> None:
        assert self.process.stdin is not None, "opened as a pipe"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def receive(self, timeout_s: float) -> str:
        try:
            line = self.lines.line(timeout_s)
        except processes.StreamError as e:
            self.kill()
            raise DeviceError(f"the process {e}: it was ended") from e
        # A byte that is no text makes an answer that is refused.
        return line.decode(errors="replace")

    def kill(self) -> None:
        if self.process.returncode is not None:
            return
        try:
            with contextlib.suppress(DeviceError):  # a device that cannot be reached any more: nothing to end there
                self.end_there()
        finally:
            processes.end(self.process)

    def close(self) -> str:
        if self.ended:
            return self.ended
        assert self.process.stdin is not None, "opened as a pipe"
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self.process.stdin.close()
        try:
            code = self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.process.wait()
        processes.end(self.process)
        self.lines.close()
        self.ended = isolation.ending(code, self.errors.close())
        return self.ended


class Worker:
    """A running program that speaks the protocol of runners/python_runner.py; `runtime` is its own name for itself.

    Every answer carries the nonce of the process and a number, so that an answer of an older process, or one too many,
    is refused. `ready` and `ask` raise DeviceError when the program dies, hangs or answers nonsense. A context manager:
    the program ends with the block, at once where that is left by an exception.
    """

    def __init__(self, device: Device, command: Command, *, timeout_s: float) -> None:
        self.timeout_s, self.nonce, self.number = timeout_s, secrets.token_hex(8), 0
        self.runtime = "unknown"
        self.channel: Channel = device.start(command.with_nonce(self.nonce))

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.stop()

    def ready(self) -> "Worker":
        """Waits until its imports are done; ends it where they fail."""
        try:
            self.runtime = printable(str(self._answer("ready").get("runtime", "unknown")))
        except DeviceError:
            self.stop()
            raise
        return self

    def ask(self, command: str, *words: object) -> dict[str, Any]:
        """One command, one answer."""
        try:
            self.channel.send("\t".join([command, *map(str, words)]) + "\n")
        except BrokenPipeError as e:
            raise DeviceError(self.channel.close()) from e
        return self._answer(command)

    def _answer(self, event: str) -> dict[str, Any]:
        try:
            line = self.channel.receive(self.timeout_s)
        except TimeoutError as e:
            self.channel.kill()
            raise DeviceError(f"no answer within {self.timeout_s:g} s: the process was ended") from e
        if not line:
            raise DeviceError(self.channel.close())
        try:
            answer: dict[str, Any] = json.loads(line)
            identity = answer["nonce"], answer["number"], answer["event"]
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            self.channel.kill()
            raise DeviceError(f"the answer is not one of the protocol: {line[:80]!r}") from e
        if identity != (self.nonce, self.number, event):
            self.channel.kill()
            raise DeviceError(f"the answer is to another command: {line[:80]!r}")
        if not _is_sound(event, answer):
            self.channel.kill()
            raise DeviceError(f"the answer has impossible numbers: {line[:80]!r}")
        self.number += 1
        return answer

    def stop(self) -> None:
        """Ends the process, politely first; may be called twice."""
        self.channel.close()

    def kill(self) -> None:
        """Ends the process at once; `stop` comes after it."""
        self.channel.kill()


def _is_sound(event: str, answer: Mapping[str, Any]) -> bool:
    """Whether the numbers of its command are there, and are possible times and counts: any program may answer."""
    times = [answer.get(name) for name in NUMBERS.get(event, ())]
    if event == "block":
        samples = answer.get("samples_ms")
        if not isinstance(samples, list) or not samples:
            return False
        times += samples
    counts = [answer[name] for name in COUNTS if answer.get(name) is not None]
    if not all(isinstance(value, int | float) and 0 <= value < MOST for value in times):
        return False
    if event == "block" and not any(answer["samples_ms"]):  # it ran until its clock went on
        return False
    return all(isinstance(value, int) and 0 <= value < MOST for value in counts)
