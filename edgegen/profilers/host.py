"""Latency on this machine: one fresh process a job, cold timings one at a time, warm blocks of the jobs in turn.

1. Start all workers and let them import, two at a time: imports are not timed, and there is nothing to disturb yet.
2. Open and run each once, strictly one after the other while the rest wait on their pipes: load and first inference.
   `cold_starts` above 1 repeats 1 and 2 with fresh processes. "Cold" is the process; the files are in the disk cache.
3. Warm up each, then blocks in turn (A B C A B C ...), so that a slow spell of the machine falls on all jobs alike.
   A job is done when its median is known to PRECISION, or when its time is up (then `converged` is False).
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.machine import probe
from edgegen.profilers.process import Worker
from edgegen.profilers.stats import Samples, summarize
from edgegen.progress import Progress, Silent
from edgegen.types import Latency

PRECISION = 0.02  # half-width of the median's 95 % interval, relative to the median
BLOCK_MS = 20.0  # a block: long enough to outweigh the caches that the other jobs left cold
LEAST_BLOCKS = 10  # of a converged job: an interval from fewer says little
LOOK_GROWTH = 1.2  # blocks until the next look at the interval: it costs as much as a block, and looks invite luck
WARM_UP = {"least_runs": 3, "least_ms": 100.0}
WARM_UP_SHARE = 0.25  # most of a job's time that its warm-up may take, on top of it
IMPORTS_AT_ONCE = 2


@dataclass(frozen=True)
class Job:
    """Something to time. `opener` is "module:function"; the worker calls it as `function(threads=..., **arguments)`.

    It returns a callable of no arguments that runs one inference at batch 1. `arguments` are plain JSON values. An
    optional `preload()` or `preload(**arguments)` in the same module imports the runtime, which keeps the import out of
    `load_ms`.
    """

    label: str
    opener: str
    arguments: dict[str, Any] = field(default_factory=dict)
    threads: int = 1


@dataclass(frozen=True)
class ProfileOptions:
    """`max_seconds` bounds the warm runs of one job; `timeout_seconds` any single answer of a worker."""

    min_runs: int = 30
    max_seconds: float = 2.0
    cold_starts: int = 1
    timeout_seconds: float = 120.0


@dataclass
class _Running:
    """What is known of a job so far."""

    job: Job
    worker: Worker | None = None
    cold: list[dict[str, float]] = field(default_factory=list)
    blocks: list[Samples] = field(default_factory=list)
    reason: str = ""
    next_look: int = LEAST_BLOCKS
    done: bool = False
    converged: bool = False

    def latency(self) -> Latency:
        known = Latency(p50_ms=None, reason=self.reason)
        if self.cold:
            peaks = [cold["peak_rss_bytes"] for cold in self.cold if cold["peak_rss_bytes"] is not None]
            known = replace(
                known,
                load_ms=statistics.median(cold["load_ms"] for cold in self.cold),
                first_ms=statistics.median(cold["first_ms"] for cold in self.cold),
                peak_rss_bytes=int(max(peaks)) if peaks else None,
            )
        if self.reason:
            return known
        summary = summarize(self.blocks)
        return replace(
            known,
            p50_ms=summary.p50_ms,
            p50_ci95_ms=summary.p50_ci95_ms,
            p90_ms=summary.p90_ms,
            runs=summary.runs,
            converged=self.converged,
        )


class HostDevice:
    """This machine."""

    name = "host"

    def probe(self) -> dict[str, Any]:
        return probe()

    def measure(
        self, jobs: Sequence[Job], *, options: ProfileOptions | None = None, progress: Progress | None = None
    ) -> dict[str, Latency]:
        return measure(jobs, options=options, progress=progress)


DEVICE = HostDevice()


def measure(
    jobs: Sequence[Job], *, options: ProfileOptions | None = None, progress: Progress | None = None
) -> dict[str, Latency]:
    """The latency of each job by its label. A job that fails or hangs has `p50_ms` None and a reason; the others go on.

    Raises UsageError when two jobs have the same label or an opener is not "module:function".
    """
    _check(jobs)
    options, progress = options or ProfileOptions(), progress or Silent()
    running = [_Running(job) for job in jobs]
    with ExitStack() as stack:
        stack.callback(_stop, running)
        for _ in range(options.cold_starts):
            _start(running, options, progress)
            _cold(running)
        _warm(running, options, progress)
    return {state.job.label: state.latency() for state in running}


def _stop(running: Iterable[_Running]) -> None:
    for state in running:
        if state.worker is not None:
            state.worker.stop()


def _check(jobs: Sequence[Job]) -> None:
    labels = [job.label for job in jobs]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"two jobs have the label '{label}': give each its own")
    for job in jobs:
        module, _, function = job.opener.partition(":")
        if not module or not function.isidentifier():
            raise UsageError(f"{job.label}: the opener '{job.opener}' is not of the form 'module:function'")


def _alive(running: Iterable[_Running]) -> list[_Running]:
    return [state for state in running if not state.reason]


def _attempt(state: _Running, action: Callable[[_Running], None]) -> None:
    """A failure of one worker is written down with its job, and ends this job only."""
    try:
        action(state)
    except DeviceError as e:
        state.reason = _without_folders(str(e), state.job)
        if state.worker is not None:
            state.worker.stop()


def _without_folders(text: str, job: Job) -> str:
    """The text with the paths among the job's arguments cut to their names: reports hold no local path."""
    for value in job.arguments.values():
        if isinstance(value, str) and Path(value).is_absolute():
            text = text.replace(value, Path(value).name)
    return text


def _start(running: list[_Running], options: ProfileOptions, progress: Progress) -> None:
    """Fresh workers for all jobs that have not failed, up to the end of their imports."""

    def start(state: _Running) -> None:
        if state.worker is not None:
            state.worker.stop()
        state.worker = Worker(timeout_s=options.timeout_seconds)
        job = state.job
        state.worker.ask(opener=job.opener, arguments=job.arguments, threads=job.threads)

    alive = _alive(running)
    with progress.task("starting", len(alive)) as task, ThreadPoolExecutor(IMPORTS_AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(lambda state: _attempt(state, start), alive), start=1):
            task.update(done)


def _cold(running: list[_Running]) -> None:
    def cold(state: _Running) -> None:
        assert state.worker is not None, "the worker was started before"
        state.cold.append(state.worker.ask(do="open"))

    for state in _alive(running):
        _attempt(state, cold)


def _warm(running: list[_Running], options: ProfileOptions, progress: Progress) -> None:
    budget_ms = options.max_seconds * 1000.0

    def warm_up(state: _Running) -> None:
        _block(state, **WARM_UP, most_ms=WARM_UP_SHARE * budget_ms)

    def measure_block(state: _Running) -> None:
        state.blocks.append(_block(state, least_runs=1, least_ms=BLOCK_MS, most_ms=budget_ms - _spent_ms(state)))
        _judge(state, options, budget_ms)

    for state in _alive(running):
        _attempt(state, warm_up)
    total = len(_alive(running))
    with progress.task("timing", total) as task:
        while pending := [state for state in _alive(running) if not state.done]:
            for state in pending:
                _attempt(state, measure_block)
            task.update(total - sum(not state.done for state in _alive(running)))


def _spent_ms(state: _Running) -> float:
    return float(sum(block.sum() for block in state.blocks))


def _block(state: _Running, **limits: float) -> Samples:
    assert state.worker is not None, "the worker was started before"
    return np.asarray(state.worker.ask(do="block", **limits)["samples_ms"], dtype=np.float64)


def _judge(state: _Running, options: ProfileOptions, budget_ms: float) -> None:
    """Done when the median is known well enough, or when the time is up."""
    if len(state.blocks) >= state.next_look and sum(len(block) for block in state.blocks) >= options.min_runs:
        state.converged = summarize(state.blocks).within(PRECISION)
        state.next_look = math.ceil(LOOK_GROWTH * len(state.blocks))
    state.done = state.converged or _spent_ms(state) >= budget_ms
