"""What can be timed: something that Python opens on this machine, or a file in its runtime's runner on any device."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgegen.errors import UsageError
from edgegen.profilers.devices.device import NONCE, Command


class Job(Protocol):
    """What is timed: a program on the device that speaks the protocol of runners/python_runner.py."""

    @property
    def label(self) -> str: ...

    @property
    def command(self) -> Command: ...

    @property
    def opening(self) -> Sequence[object]:
        """The fields of its command "open"."""

    @property
    def paths(self) -> Iterable[str]:
        """Local paths that no message may hold."""


@dataclass(frozen=True)
class PythonJob:
    """Something that Python opens. `opener` is "module:function", called as `function(threads=..., **arguments)`.

    It returns a callable of no arguments that runs one inference at batch 1. `arguments` are plain JSON values. An
    optional `preload()` or `preload(**arguments)` in the same module imports the runtime, which keeps the import out of
    `load_ms`. On this machine only.
    """

    label: str
    opener: str
    arguments: dict[str, Any] = field(default_factory=dict)
    threads: int = 1

    @property
    def command(self) -> Command:
        module, _, function = self.opener.partition(":")
        if not module or not function.isidentifier():
            raise UsageError(f"{self.label}: the opener '{self.opener}' is not of the form 'module:function'")
        job = json.dumps({"opener": self.opener, "arguments": self.arguments})
        # -P keeps the current folder off its sys.path: a `json.py` there must not be imported.
        return Command((sys.executable, "-P", "-m", "edgegen.profilers.timing.worker", NONCE, job))

    @property
    def opening(self) -> Sequence[object]:
        return (self.threads,)

    @property
    def paths(self) -> Iterable[str]:
        return [value for value in self.arguments.values() if isinstance(value, str) and Path(value).is_absolute()]


@dataclass(frozen=True)
class FileJob:
    """A file on a device in its runtime's runner."""

    label: str
    command: Command
    opening: Sequence[object]
    paths: Sequence[str] = ()
