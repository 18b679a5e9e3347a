"""Runs functions in a child process, so that a native crash or too much memory becomes an exception.

    parent                                              child
    call("edgegen.artifacts.lower:lower", {...})   -- job.json -->  python -m edgegen.support.isolation JOB RESULT
                                         <-- result.json  {"value": ...} or {"error": "ExportError", "message": ...}

A child waits for the next function then (edgegen.support.children keeps it). The last lines of its output are part of
the message when it dies. It ends with its parent: by the guardian, which kills it, and where that was killed, too, by
the pipe that is its stdin, as soon as a vendor's code lets it.
"""

import contextlib
import importlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegen import errors
from edgegen.errors import EdgegenError, ExportError, StorageError
from edgegen.support import guardian, processes, scratch
from edgegen.support.memory import forget_peak, over_limit, peak_rss_bytes, resident_bytes
from edgegen.support.printable import printable

REASON_LINES, REASON_LENGTH = 3, 400
POLL_S = 0.1  # between two readings of the child's memory
BLOCK = 1 << 16
DEADLINE = "deadline.json"  # in the folder of a child: what it does with a limit of time, and from when


@dataclass(frozen=True)
class Outcome:
    """The function's result, how long the process ran, and its peak memory (None: unknown)."""

    value: Any
    seconds: float
    peak_rss_bytes: int | None


class Child:
    """A process that waits for what it shall run, and may import meanwhile.

    `preload` ("module:name") is called with `arguments` before it waits. Raises nothing: what fails there fails again
    where it is needed. Ended when nothing uses it.
    """

    def __init__(self, preload: str | None = None, arguments: Mapping[str, Any] | None = None) -> None:
        self.folder = scratch.new_folder()
        self.job, self.result = self.folder / "job.json", self.folder / "result.json"
        ahead = json.dumps({"function": preload, "arguments": dict(arguments or {})})
        self.process = processes.start(
            python("edgegen.support.isolation", str(self.job), str(self.result), ahead),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        assert self.process.stdout is not None, "a pipe"
        self.log = processes.Tail(self.process.stdout)
        self._end = weakref.finalize(self, _end, self.process, self.log, self.folder)

    def run(self, function: str, arguments: Mapping[str, Any], memory_limit: int | None, doing: str) -> dict[str, Any]:
        """The answer that the process wrote. Raises ExportError where it ended without one."""
        from edgegen.support.storage import storage_errors  # here: it imports numpy, and `worker` measures its memory

        with storage_errors(self.job):
            self.job.write_text(json.dumps({"function": function, "arguments": dict(arguments)}), encoding="utf-8")
        assert self.process.stdin is not None, "a pipe"
        with contextlib.suppress(OSError):  # it is dead: `ending` says how
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
        peak = self._watch(memory_limit)
        if not self.result.exists():
            raise ExportError(f"the process that {doing} {ending(self.process.returncode, self.log.close())}")
        answer: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
        self.result.unlink()
        self.log.clear()  # it explains nothing of the next call
        return {**answer, "peak_rss_bytes": answer["peak_rss_bytes"] or peak or None}

    def close(self) -> None:
        """Ends the process, if it still waits or runs, and removes its folder; may be called twice."""
        self._end()

    def _watch(self, limit: int | None) -> int:
        """Waits for the result or the end of the process; returns the peak memory.

        Raises ExportError when it exceeds `limit`, or a `deadline`.
        """
        peak = 0
        while not self.result.exists():
            try:
                self.process.wait(POLL_S)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, resident_bytes(self.process.pid))
            if reason := over_limit(self.process, limit):
                raise ExportError(f"it {reason}. Raise --memory-limit")
            if reason := self._late():
                raise ExportError(reason)
        return peak

    def _late(self) -> str:
        """That what the child is doing takes longer than it may, "" where it does not."""
        try:
            order = json.loads((self.folder / DEADLINE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ""
        return late(order["doing"], order["seconds"]) if time.monotonic() > order["until"] else ""


def _end(process: "subprocess.Popen[bytes]", log: processes.Tail, folder: Path) -> None:
    processes.end(process)
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def call(
    function: str,
    arguments: Mapping[str, Any],
    *,
    memory_limit: int | None = None,
    child: Child | None = None,
    doing: str = "",
) -> Outcome:
    """`function` is "module:name"; its arguments (keywords) and its result are JSON.

    `child` is a process that waits for work, and afterwards for more; it is ended where this raises. Default: one for
    this call alone; in a child, which is isolated already, the child itself. `doing` is a word for messages, such as
    "made net.onnx".

    Raises the function's exception where that is an EdgegenError, else ExportError: with the end of the log when the
    process died, and with both sizes when it was ended because it held more than `memory_limit` bytes. Raises
    StorageError where the disk is full.
    """
    from edgegen.support.storage import disk_full, is_disk_full

    began = time.monotonic()
    if _folder is not None:  # of a child
        return Outcome(load(function)(**arguments), time.monotonic() - began, None)
    process = child or Child()
    try:
        answer = process.run(function, arguments, memory_limit, doing or f"ran {function}")
        value = value_of(answer)
    except BaseException as e:
        full, place = "", process.folder.parent
        if isinstance(e, ExportError) and is_disk_full(place):  # each vendor has other words for it, or none
            full = disk_full(place / "temporary files")
        process.close()  # what it did not end stays behind in it
        if full:
            raise StorageError(full) from e
        raise
    if process is not child:
        process.close()
    return Outcome(value, time.monotonic() - began, answer["peak_rss_bytes"])


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a child. -P keeps the current folder off its sys.path: a `json.py` there is not imported."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment of a child: the parent's, with its import paths; temporary files go where the parent's are."""
    paths = [str(Path(path).absolute()) for path in sys.path]
    ours = {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(scratch.of_this_process()), guardian.CHILD: "1"}
    return {**os.environ, **ours}


def ending(code: int, log: bytes) -> str:
    """How a process ended, and the last lines of its log without the frames of a traceback."""
    ended = f"ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    text = log.decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "Traceback"))]
    tail = printable(" / ".join(lines[-REASON_LINES:])[-REASON_LENGTH:])
    if tail:
        return f"{ended}: {tail}"
    return f"{ended}, nothing on stderr" + ("; out of memory?" if code == -signal.SIGKILL else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals, which have no names
        return f"signal {number}"


@contextlib.contextmanager
def deadline(seconds: float, doing: str) -> Iterator[None]:
    """In a child: its parent ends it where the block takes longer, whatever holds the interpreter meanwhile.

    `doing` is what takes so long, such as "the first run of net.onnx". Elsewhere it does nothing.
    """
    if _folder is None:
        yield
        return
    path = _folder / DEADLINE
    order = {"doing": doing, "seconds": seconds, "until": time.monotonic() + seconds}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(order), encoding="utf-8")
    partial.replace(path)
    try:
        yield
    finally:
        path.unlink()


def late(doing: str, seconds: float) -> str:
    """The message for what was ended because it took too long."""
    return f"{doing} did not end within {seconds:g} s: stopped; does its runtime hang, or is this machine too busy?"


def answer_of(error: EdgegenError) -> dict[str, Any]:
    """An exception as a child answers with it: by the nearest class of edgegen.errors, whatever package raised it."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {"error": kind.__name__, "message": str(error)}


def value_of(answer: Mapping[str, Any]) -> Any:
    """The value in a child's answer. Raises the exception that is in its place."""
    if "error" not in answer:
        return answer["value"]
    kind: type[EdgegenError] = getattr(errors, answer["error"])
    error = kind.__new__(kind)  # without the constructor, which in some classes makes the message
    Exception.__init__(error, answer["message"])
    raise error


def lines_of_parent() -> "queue.SimpleQueue[bytes]":
    """In a child: the lines that the parent writes. This process ends at once when the parent has ended or closed it.

    By os.read, because a thread that waits in sys.stdin is a fatal error when the interpreter ends.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        rest = b""
        while block := os.read(sys.stdin.fileno(), BLOCK):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                lines.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return lines


_folder: Path | None = None  # of this child, where it is one


def load(name: str) -> Any:
    """The function or class "module:name"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def main() -> None:
    """The child: JOB, a file with the function and its arguments; RESULT, the file to write; what to import first."""
    global _folder
    job, target, ahead = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    _folder = target.parent
    lines = lines_of_parent()
    if ahead["function"] is not None:
        with contextlib.suppress(Exception):  # raised again by the job that needs it
            load(ahead["function"])(**ahead["arguments"])
    partial, peak_is_of_this = target.with_suffix(".partial"), True
    while True:
        lines.get()
        order = json.loads(job.read_text(encoding="utf-8"))
        try:
            answer: dict[str, Any] = {"value": load(order["function"])(**order["arguments"])}
        except EdgegenError as e:
            answer = answer_of(e)
        peak = peak_rss_bytes() if peak_is_of_this else None
        partial.write_text(json.dumps({**answer, "peak_rss_bytes": peak}), encoding="utf-8")
        partial.replace(target)
        peak_is_of_this = forget_peak()


if __name__ == "__main__":
    # By the module's own name, under which what runs here finds `_folder`.
    importlib.import_module("edgegen.support.isolation").main()
