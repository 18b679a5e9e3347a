"""Runs a function in a child process, so that a native crash or too much memory becomes an exception.

    parent                                              child
    call("edgegen.artifacts.build:lower", {...})   -- job.json -->  python -m edgegen.support.isolation JOB RESULT
                                         <-- result.json  {"value": ...} or {"error": "ExportError", "message": ...}

The output of the child goes to a file; its last lines are part of the message when it dies.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edgegen import errors
from edgegen.errors import EdgegenError, ExportError

REASON_LINES, REASON_LENGTH = 3, 400
POLL_S = 0.1  # between two readings of the child's memory


@dataclass(frozen=True)
class Outcome:
    """The function's result, how long the process ran, and its peak memory (None: unknown)."""

    value: Any
    seconds: float
    peak_rss_bytes: int | None


def call(function: str, arguments: Mapping[str, Any], *, memory_limit: int | None = None) -> Outcome:
    """`function` is "module:name"; its arguments (keywords) and its result are JSON.

    Raises the function's exception where that is an EdgegenError, else ExportError: with the end of the log when the
    process died, and with both sizes when it was ended because it held more than `memory_limit` bytes.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        job, result, log = (Path(folder) / name for name in ("job.json", "result.json", "log"))
        job.write_text(json.dumps({"function": function, "arguments": dict(arguments)}), encoding="utf-8")
        with log.open("wb") as output:
            process = subprocess.Popen(
                # -P keeps the current folder off sys.path: a `json.py` there must not be imported.
                [sys.executable, "-P", "-m", "edgegen.support.isolation", str(job), str(result)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
            )
            peak = _watch(process, memory_limit)
        if not result.exists():
            raise ExportError(f"the process that ran {function} {ending(process.returncode, log.read_bytes())}")
        answer = json.loads(result.read_text(encoding="utf-8"))
    if "error" in answer:
        raise _error(answer["error"], answer["message"])
    return Outcome(answer["value"], time.monotonic() - began, answer["peak_rss_bytes"] or peak)


def _error(name: str, message: str) -> EdgegenError:
    kind: type[EdgegenError] = getattr(errors, name)
    error = kind.__new__(kind)  # without the constructor, which in some classes makes the message
    Exception.__init__(error, message)
    return error


def environment() -> dict[str, str]:
    """The parent's environment, with its import paths."""
    paths = [str(Path(path).absolute()) for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def ending(code: int, log: bytes) -> str:
    """How a process ended, and the last lines of its log without the frames of a traceback."""
    ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    text = log.decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "Traceback"))]
    tail = " / ".join(lines[-REASON_LINES:])[-REASON_LENGTH:]
    if tail:
        return f"{ended}: {tail}"
    return f"{ended}, nothing on stderr" + ("; out of memory?" if code == -signal.SIGKILL else "")


def _watch(process: subprocess.Popen[bytes], limit: int | None) -> int:
    """Waits for the end; returns the peak memory. Ends the child and raises ExportError when it exceeds `limit`."""
    peak = 0
    try:
        while True:
            try:
                process.wait(POLL_S)
                return peak
            except subprocess.TimeoutExpired:
                peak = max(peak, _held(process.pid))
            if limit is not None and peak > limit:
                raise ExportError(
                    f"it held {peak / 1e9:.2f} GB of memory, {limit / 1e9:.2f} GB are allowed: stopped. "
                    "Raise --memory-limit"
                )
    finally:
        if process.poll() is None:  # after the limit, or after Ctrl-C
            process.kill()
            process.wait()


def _held(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # the child has just ended
        return 0


def peak_rss_bytes() -> int | None:
    """Peak memory of this process, Python and the runtime included; None where it is unknown.

    On Linux VmHWM, because ru_maxrss keeps the size of the parent across fork and exec (measured: 611 MB for a child
    that used 11 MB). Elsewhere ru_maxrss: bytes on macOS, KiB on the BSDs.
    """
    if sys.platform == "linux":
        peak_kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        return int(peak_kib[1]) * 1024 if peak_kib else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """The child: JOB, a file with the function and its arguments; RESULT, the file to write."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    module, _, name = job["function"].partition(":")
    try:
        answer: dict[str, Any] = {"value": getattr(importlib.import_module(module), name)(**job["arguments"])}
    except EdgegenError as e:
        answer = {"error": type(e).__name__, "message": str(e)}
    target = Path(sys.argv[2])
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps({**answer, "peak_rss_bytes": peak_rss_bytes()}), encoding="utf-8")
    partial.replace(target)


if __name__ == "__main__":
    main()
