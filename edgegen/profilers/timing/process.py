"""This machine's end of a worker: start it on a device, send it commands, explain why it died, end it."""

import contextlib
import json
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import psutil

from edgegen.errors import DeviceError
from edgegen.profilers.devices.device import Channel, Command, Device
from edgegen.support import isolation

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
        # A file, not a pipe: nobody has to empty it. Closed by `close`.
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            errors="replace",  # a byte that is no text makes an answer that is refused, and not the end of `_read`
            env=environment,
        )
        if memory_limit is not None and sys.platform == "linux":
            # By the system: reading its memory time and again would disturb what is measured. What asks for more gets
            # no memory, which its runtime reports or dies of.
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self.process.pid).rlimit(psutil.RLIMIT_DATA, (memory_limit, memory_limit))
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)  # a pipe cannot be waited for on Windows
        self.reader.start()
        self.ended = ""

    def _read(self) -> None:
        assert self.process.stdout is not None, "opened as a pipe"
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def send(self, line: str) -> None:
        assert self.process.stdin is not None, "opened as a pipe"
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def receive(self, timeout_s: float) -> str:
        try:
            return self.lines.get(timeout=timeout_s)
        except queue.Empty as e:
            raise TimeoutError from e

    def kill(self) -> None:
        try:
            with contextlib.suppress(DeviceError):  # a device that cannot be reached any more: nothing to end there
                self.end_there()
        finally:
            self.process.kill()

    def close(self) -> str:
        if self.ended:
            return self.ended
        assert self.process.stdin is not None, "opened as a pipe"
        assert self.process.stdout is not None, "opened as a pipe"
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self.process.stdin.close()
        try:
            code = self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.errors.seek(0)
        self.ended = isolation.ending(code, self.errors.read())
        self.errors.close()
        return self.ended


class Worker:
    """A running program that speaks the protocol of runners/python_runner.py; `runtime` is its own name for itself.

    Every answer carries the nonce of the process and a number, so that an answer of an older process, or one too many,
    is refused. `ask` and the constructor raise DeviceError when the program dies, hangs or answers nonsense.
    """

    def __init__(self, device: Device, command: Command, *, timeout_s: float) -> None:
        self.timeout_s, self.nonce, self.number = timeout_s, secrets.token_hex(8), 0
        self.channel: Channel = device.start(command.with_nonce(self.nonce))
        try:
            self.runtime = str(self._answer("ready").get("runtime", "unknown"))
        except DeviceError:
            self.stop()
            raise

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
