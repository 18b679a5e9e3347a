"""The process that is measured for a PythonJob: it opens what runs by a function of edgegen's.

    python -m edgegen.profilers.timing.worker NONCE JOB

JOB is JSON: {"opener": "module:function", "arguments": {...}}. The opener, called as `function(threads=...,
**arguments)`, returns a callable of no arguments that runs one inference at batch 1. If its module has a function
`preload`, that imports the runtime before the clock starts; it is called with the opener's arguments if it has
parameters, else with none. Commands and answers are those of runners/python_runner.py. This module imports nothing
heavy: the memory that it reports is the runtime's.
"""

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from edgegen.profilers.runners.python_runner import Facts, serve, timed_open
from edgegen.support.memory import peak_rss_bytes


class Opened:
    """What a job's opener opens."""

    infer: Callable[[], object]
    runtime = "opened by edgegen"

    def __init__(self, job: dict[str, Any]) -> None:
        module, _, self.name = job["opener"].partition(":")
        self.module, self.arguments = importlib.import_module(module), job["arguments"]
        if hasattr(self.module, "preload"):
            self.module.preload(**(self.arguments if inspect.signature(self.module.preload).parameters else {}))

    def open(self, words: Sequence[str]) -> Facts:
        def load() -> None:
            self.infer = getattr(self.module, self.name)(threads=int(words[0]), **self.arguments)

        return timed_open(load, lambda: self.infer())


if __name__ == "__main__":
    serve(sys.argv[1], Opened(json.loads(sys.argv[2])), peak_rss_bytes=peak_rss_bytes)
