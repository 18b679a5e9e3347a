"""A child process that holds one object and answers calls of its methods, until it is closed or dies.

    parent                                             child
    Service("module:Class").call("open", {...})   -- stdin -->   {"method": "open", "arguments": {...}}
                                                 <-- stdout --   {"value": ...} or {"error": ..., "message": ...}

For what is kept between the calls, as a file that is opened once and run many times; `isolation.call` keeps nothing.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegen.errors import EdgegenError, ExportError
from edgegen.support import isolation, processes, scratch
from edgegen.support.memory import over_limit


class Service:
    """`factory` is "module:class", made without arguments in the child; `variables` are added to its environment.

    `folder` is for files that are too large for JSON, and goes with the process. Ended when nothing uses it.
    """

    def __init__(self, factory: str, *, variables: Mapping[str, str]) -> None:
        self.folder = scratch.new_folder()
        self.process = processes.start(
            isolation.python("edgegen.support.service", factory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**isolation.environment(), **variables},
        )
        assert self.process.stdout is not None, "a pipe"
        assert self.process.stderr is not None, "a pipe"
        self.lines, self.log = processes.LineReader(self.process.stdout), processes.Tail(self.process.stderr)
        self._end = weakref.finalize(self, _end, self.process, self.lines, self.log, self.folder)

    @property
    def alive(self) -> bool:
        return self._end.alive and self.process.poll() is None

    def call(
        self,
        method: str,
        arguments: Mapping[str, Any],
        *,
        doing: str,
        memory_limit: int | None = None,
        time_limit_s: float = math.inf,
    ) -> Any:
        """What the method returns for the arguments (keywords); both are JSON. `doing` is a word such as "opened x".

        Raises the method's exception where that is an EdgegenError. Raises ExportError where the process died, or was
        ended because it held more than `memory_limit` bytes or took longer than `time_limit_s`; it is closed then.
        """
        assert self.process.stdin is not None, "a pipe"
        self.log.clear()  # what was printed for another call explains nothing
        try:
            self.process.stdin.write(json.dumps({"method": method, "arguments": dict(arguments)}).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:  # it is dead: the empty line that follows the last one says so
            pass
        try:
            line = self._line(doing, memory_limit, time_limit_s)
        except BaseException:  # its answer would be taken for that of the next call
            self.close()
            raise
        return isolation.value_of(json.loads(line))

    def close(self) -> None:
        """Ends the process and removes its folder; may be called twice."""
        self._end()

    def _line(self, doing: str, memory_limit: int | None, time_limit_s: float) -> bytes:
        until = time.monotonic() + time_limit_s
        while True:
            try:
                line = self.lines.line(isolation.POLL_S)
            except TimeoutError:
                reason = over_limit(self.process, memory_limit)
                if time.monotonic() > until:
                    raise ExportError(isolation.late(f"the process that {doing}", time_limit_s)) from None
            else:
                if line.endswith(b"\n"):
                    return line
                reason = isolation.ending(self.process.wait(), self.log.close())
            if reason:
                raise ExportError(f"the process that {doing} {reason}")


def _end(process: "subprocess.Popen[bytes]", lines: processes.LineReader, log: processes.Tail, folder: Path) -> None:
    processes.end(process)
    lines.close()
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """The child. What vendors print goes to the log, because stdout is for answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = isolation.lines_of_parent()
    served = isolation.load(sys.argv[1])()
    while True:
        order = json.loads(lines.get())
        try:
            answer: dict[str, Any] = {"value": getattr(served, order["method"])(**order["arguments"])}
        except EdgegenError as e:
            answer = isolation.answer_of(e)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
