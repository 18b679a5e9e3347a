"""The host's end of a worker process: start it, ask it, say why it died, end it."""

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

from edgegen import child
from edgegen.errors import DeviceError

GRACE_S = 5.0  # for a worker to end by itself once its input is closed


class Worker:
    """One `python -m edgegen.profilers.worker`. `ask` raises DeviceError when it dies, hangs or answers nonsense."""

    def __init__(self, *, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        # A file, not a pipe: nobody has to empty it. Closed by `stop`.
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            # -P keeps the folder that we happen to be in off its sys.path: a `json.py` there must not be imported.
            [sys.executable, "-P", "-m", "edgegen.profilers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            env=child.environment(),
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)  # a pipe cannot be waited for on Windows
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None, "opened as a pipe"
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, **question: Any) -> dict[str, Any]:
        """One question, one answer, both a JSON object."""
        assert self.process.stdin is not None, "opened as a pipe"
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=self.timeout_s)
        except BrokenPipeError as e:
            raise DeviceError(self._why_it_died()) from e
        except queue.Empty as e:
            self.process.kill()
            raise DeviceError(f"no answer within {self.timeout_s:g} s: the process was ended") from e
        if not line:
            raise DeviceError(self._why_it_died())
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError as e:
            self.process.kill()
            raise DeviceError(f"answered something that is not JSON: {line[:80]!r}") from e
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
            self.process.kill()
            return self.process.wait()

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
