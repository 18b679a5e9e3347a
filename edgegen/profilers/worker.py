"""The process that is measured: opens one inference and times it, told what to do by JSON lines (`host.py` speaks).

    stdin                                                   stdout
    {"opener": "module:function", "arguments", "threads"}   {"event": "ready"}, once the imports are done
    {"do": "open"}                                          {"event": "opened", "load_ms", "first_ms", "peak_rss_bytes"}
    {"do": "block", "least_runs", "least_ms", "most_ms"}    {"event": "block", "samples_ms": [...]}
    end of input                                            the process ends

The opener, called as `function(threads=..., **arguments)`, returns a callable of no arguments that runs one inference
at batch 1. If its module has a function `preload`, that imports the runtime before the clock starts; it is called with
the opener's arguments if it has parameters, else with none. An error ends the process with a traceback on stderr. This
module imports nothing heavy: the memory that it reports is the runtime's.
"""

import gc
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, TextIO

from edgegen.memory import peak_rss_bytes

Inference = Callable[[], object]


def main() -> None:
    answers = _protected_stdout()
    job = json.loads(sys.stdin.readline())
    module_name, _, name = job["opener"].partition(":")
    module = importlib.import_module(module_name)
    if hasattr(module, "preload"):
        module.preload(**(job["arguments"] if inspect.signature(module.preload).parameters else {}))
    _answer(answers, event="ready")
    infer: Inference | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "open":
            infer, facts = _open(module, name, job)
            _answer(answers, event="opened", **facts)
        else:
            assert infer is not None, "block before open"
            _answer(answers, event="block", samples_ms=_block(infer, command))


def _protected_stdout() -> TextIO:
    """The pipe to the host under a number of its own; what libraries print goes to stderr, C libraries' too."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def _answer(answers: TextIO, **facts: Any) -> None:
    answers.write(json.dumps(facts) + "\n")
    answers.flush()


def _open(module: ModuleType, name: str, job: dict[str, Any]) -> tuple[Inference, dict[str, Any]]:
    began = time.perf_counter_ns()
    infer: Inference = getattr(module, name)(threads=job["threads"], **job["arguments"])
    opened = time.perf_counter_ns()
    infer()
    answered = time.perf_counter_ns()
    facts = {"load_ms": (opened - began) / 1e6, "first_ms": (answered - opened) / 1e6}
    return infer, {**facts, "peak_rss_bytes": peak_rss_bytes()}


def _block(infer: Inference, command: dict[str, Any]) -> list[float]:
    """Runs back to back until `least_runs` and `least_ms` are both reached, or `most_ms` is; milliseconds of each."""
    clock = time.perf_counter_ns
    samples: list[float] = []
    least_runs, least_ns, most_ns = command["least_runs"], command["least_ms"] * 1e6, command["most_ms"] * 1e6
    collecting = gc.isenabled()
    gc.disable()  # as timeit does: a pause of ours is not the runtime's
    try:
        start = now = clock()
        while now - start < most_ns and (len(samples) < least_runs or now - start < least_ns):
            began = clock()
            infer()
            now = clock()
            samples.append((now - began) / 1e6)
    finally:
        if collecting:
            gc.enable()
    return samples


if __name__ == "__main__":
    main()
