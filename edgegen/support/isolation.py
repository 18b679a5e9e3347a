"""Runs a function in a child process, so that a native crash or too much memory becomes an exception.

    parent                                              child
    call("edgegen.artifacts.lower:lower", {...})   -- job.json -->  python -m edgegen.support.isolation JOB RESULT
                                         <-- result.json  {"value": ...} or {"error": "ExportError", "message": ...}

The last lines of the child's output are part of the message when it dies. It ends with its parent: by the guardian,
which kills it, and where that was killed, too, by the pipe that is its stdin, as soon as a vendor's code lets it.
"""

import contextlib
import importlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edgegen import errors
from edgegen.errors import EdgegenError, ExportError, StorageError
from edgegen.support import guardian, processes, scratch
from edgegen.support.printable import printable

REASON_LINES, REASON_LENGTH = 3, 400
POLL_S = 0.1  # between two readings of the child's memory
BLOCK = 1 << 16
# Of a process that opens and runs an exported file. A runtime with torch takes 0.7 GB; the evaluator unpacks weights of
# 4 bits into float32, eight times the bytes of the file; the rest is for what a network computes on the way.
LEAST_LIMIT, LIMIT_BY_SIZE = 4_000_000_000, 16
DEADLINE = "deadline.json"  # in the folder of a child: what it does with a limit of time, and from when


@dataclass(frozen=True)
class Outcome:
    """The function's result, how long the process ran, and its peak memory (None: unknown)."""

    value: Any
    seconds: float
    peak_rss_bytes: int | None


class Child:
    """A process that waits for what it shall run, and may import meanwhile; used once, by `call`.

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
        return {**answer, "peak_rss_bytes": answer["peak_rss_bytes"] or peak}

    def close(self) -> None:
        """Ends the process, if it still waits or runs, and removes its folder."""
        processes.end(self.process)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _watch(self, limit: int | None) -> int:
        """Waits for the end; returns the peak memory. Raises ExportError when it exceeds `limit`, or a `deadline`."""
        peak = 0
        while True:
            try:
                self.process.wait(POLL_S)
                return peak
            except subprocess.TimeoutExpired:
                peak = max(peak, resident_bytes(self.process.pid))
            if reason := over_limit(self.process, limit):
                raise ExportError(f"it {reason}. Raise --memory-limit")
            if reason := self._late():
                raise ExportError(reason)

    def _late(self) -> str:
        """That what the child is doing takes longer than it may, "" where it does not."""
        try:
            order = json.loads((self.folder / DEADLINE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ""
        return late(order["doing"], order["seconds"]) if time.monotonic() > order["until"] else ""


def call(
    function: str,
    arguments: Mapping[str, Any],
    *,
    memory_limit: int | None = None,
    child: Child | None = None,
    doing: str = "",
) -> Outcome:
    """`function` is "module:name"; its arguments (keywords) and its result are JSON. `child` is one that waits for it.

    `doing` is a word for messages, such as "made net.onnx".

    Raises the function's exception where that is an EdgegenError, else ExportError: with the end of the log when the
    process died, and with both sizes when it was ended because it held more than `memory_limit` bytes. Raises
    StorageError where the disk is full.
    """
    from edgegen.support.storage import disk_full, is_disk_full

    began = time.monotonic()
    process = child or Child()
    try:
        answer = process.run(function, arguments, memory_limit, doing or f"ran {function}")
        value = value_of(answer)
    except ExportError as e:
        if is_disk_full(process.folder):  # each vendor has other words for it, or none
            raise StorageError(disk_full(process.folder / "temporary files")) from e
        raise
    finally:
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


def memory_limit_of(path: Path) -> int:
    """How many bytes a process may hold to open and run an exported file, where no option says it."""
    from edgegen.support.storage import nbytes_of

    weights = path.with_name(f"{path.name}.data")  # those above 2 GB lie beside the file
    return LEAST_LIMIT + LIMIT_BY_SIZE * sum(nbytes_of(file) for file in (path, weights) if file.exists())


def over_limit(process: subprocess.Popen[bytes], limit: int | None) -> str:
    """In words, that the process holds more than `limit` bytes of memory; "" where it does not."""
    nbytes = resident_bytes(process.pid) if limit is not None else 0
    if limit is None or nbytes <= limit:
        return ""
    return f"held {nbytes / 1e9:.2f} GB of memory, {limit / 1e9:.2f} GB are allowed: stopped"


def resident_bytes(pid: int) -> int:
    """The memory that a process holds; 0 where it has just ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


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
    lines.get()
    order = json.loads(job.read_text(encoding="utf-8"))
    try:
        answer: dict[str, Any] = {"value": load(order["function"])(**order["arguments"])}
    except EdgegenError as e:
        answer = answer_of(e)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps({**answer, "peak_rss_bytes": peak_rss_bytes()}), encoding="utf-8")
    partial.replace(target)


if __name__ == "__main__":
    # By the module's own name, under which what runs here finds `_folder`.
    importlib.import_module("edgegen.support.isolation").main()
