"""This machine's end of a worker: start it on a device, ask it, say why it died, end it."""

import contextlib
import json
import queue
import secrets
import subprocess
import tempfile
import threading
from typing import IO, Any

from edgegen import child
from edgegen.errors import DeviceError
from edgegen.profilers.device import Command, Device

GRACE_S = 5.0  # for a worker to end by itself once its input is closed


class Worker:
    """A program that speaks as runners/onnx_runner.py does, and has said that it is ready.

    Every answer carries the nonce that it was started with and its number: one of an older process, or one too many,
    is refused. `ask` raises DeviceError when the worker dies, hangs or answers nonsense, and so does making it.
    """

    def __init__(self, device: Device, command: Command, *, timeout_s: float) -> None:
        self.timeout_s, self.device, self.nonce, self.number = timeout_s, device, secrets.token_hex(8), 0
        # A file, not a pipe: nobody has to empty it. Closed by `stop`.
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process: subprocess.Popen[str] = device.start(command.with_nonce(self.nonce), errors=self.errors)
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)  # a pipe cannot be waited for on Windows
        self.reader.start()
        try:
            self._answer("ready")
        except DeviceError:
            self.stop()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None, "opened as a pipe"
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, command: str, *words: object) -> dict[str, Any]:
        """One command, one answer."""
        assert self.process.stdin is not None, "opened as a pipe"
        try:
            self.process.stdin.write("\t".join([command, *map(str, words)]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as e:
            raise DeviceError(self._why_it_died()) from e
        return self._answer(command)

    def _answer(self, event: str) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=self.timeout_s)
        except queue.Empty as e:
            self._kill()
            raise DeviceError(f"no answer within {self.timeout_s:g} s: the process was ended") from e
        if not line:
            raise DeviceError(self._why_it_died())
        try:
            answer: dict[str, Any] = json.loads(line)
            said = answer["nonce"], answer["number"], answer["event"]
        except (json.JSONDecodeError, KeyError, TypeError) as e:
            self._kill()
            raise DeviceError(f"answered something that is no answer: {line[:80]!r}") from e
        if said != (self.nonce, self.number, event):
            self._kill()
            raise DeviceError(f"answered something else than was asked: {line[:80]!r}")
        self.number += 1
        return answer

    def _why_it_died(self) -> str:
        """How the process ended and the last lines of its stderr, without the frames of a traceback."""
        code = self._wait()
        self.errors.seek(0)
        return child.ending(code, self.errors.read())

    def _wait(self) -> int:
        """The exit code; a process that does not end by itself is killed."""
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            return self.process.wait()

    def _kill(self) -> None:
        self.device.kill(self.process)

    def stop(self) -> None:
        """Ends the process, politely first; may be called twice."""
        if self.errors.closed:
            return
        assert self.process.stdin is not None, "opened as a pipe"
        assert self.process.stdout is not None, "opened as a pipe"
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self.process.stdin.close()
        self._wait()
        self.reader.join()
        self.process.stdout.close()
        self.errors.close()
