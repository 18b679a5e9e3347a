"""Latency: one fresh process a job, cold timings one at a time, warm blocks of the jobs in turn ("edgegen-bench/1").

The runners only carry out commands; when to start, to stop and to doubt is decided here, for all devices.

1. Start all workers and let them import, two at a time: imports are not timed, and there is nothing to disturb yet.
2. Open and run each once, strictly one after the other while the rest wait on their pipes: load and first inference.
   `cold_starts` above 1 repeats 1 and 2 with fresh processes. "Cold" is the process; the files are in the disk cache.
3. Warm up each, until two blocks in a row agree.
4. Blocks in turn, so that a slow spell of the machine falls on all jobs alike, and in another order each round: what
   ran before leaves its traces in the caches (in one order the first of three was 1.5 % slower, always). A job is done
   when its median is known to PRECISION and it has run long enough, or when its time is up (then `converged` is False).
   The device is asked before and after how much of it other programs used, and a fixed piece of arithmetic shows
   whether its processor slowed down: `Interference` says whether to believe the times.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.device import Device
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.timing.interference import Interference, Usage, interference
from edgegen.profilers.timing.jobs import Job
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.stats import Samples, percentiles, summarize
from edgegen.support.progress import Progress, Silent
from edgegen.types import Latency

PRECISION = 0.02  # half-width of the median's 95 % interval, relative to the median
BLOCK_MS = 20.0  # a block: long enough to outweigh the caches that the other jobs left cold
LEAST_BLOCKS = 10  # of a converged job: an interval from fewer says little
LOOK_GROWTH = 1.2  # blocks until the next look at the interval: it costs as much as a block, and looks invite luck
WARM_RUNS, WARM_AGREE = 5, 0.05  # of a warm-up's blocks: least runs, and how near two medians in a row must be
IMPORTS_AT_ONCE = 2
SPREAD = 1.5  # p90 over p50, above which the times are doubtful


@dataclass(frozen=True)
class ProfileOptions:
    """`max_seconds` bounds the warm runs of one job; `timeout_seconds` any single answer of a worker.

    A job runs at least `min_runs` times and `min_seconds`, after a warm-up of `warm_seconds` to a quarter of
    `max_seconds`.
    """

    min_runs: int = 30
    max_seconds: float = 2.0
    cold_starts: int = 1
    timeout_seconds: float = 120.0
    min_seconds: float = 0.0
    warm_seconds: float = 0.1


# The choices of `edgegen profile --profile`.
PROFILES: Mapping[str, ProfileOptions] = {
    "quick": ProfileOptions(min_runs=20, max_seconds=3.0, cold_starts=1),
    "full": ProfileOptions(min_runs=64, min_seconds=10.0, max_seconds=60.0, cold_starts=3, warm_seconds=1.0),
}


@dataclass
class Timing:
    """The state of one job: what was measured so far, and its worker."""

    job: Job
    worker: Worker | None = None
    cold: list[dict[str, Any]] = field(default_factory=list)
    warm_up: list[Samples] = field(default_factory=list)
    stable: bool = False
    blocks: list[Samples] = field(default_factory=list)
    cpu_ms: float = 0.0
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
            percentiles_ms=percentiles(self.blocks),
        )

    def reasons(self) -> list[str]:
        """Why its times should not be believed, from the times themselves."""
        if self.reason or not self.blocks:
            return []
        reasons = [] if self.converged else ["the median did not settle in the time given"]
        summary = summarize(self.blocks)
        if summary.p90_ms > SPREAD * summary.p50_ms:
            reasons.append(f"p90 is {summary.p90_ms / summary.p50_ms:.1f} times p50")
        return reasons


def measure(
    jobs: Sequence[Job],
    *,
    device: Device = DEVICE,
    options: ProfileOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Latency]:
    """The latency of each job by its label. A job that fails or hangs has `p50_ms` None and a reason; the others go on.

    Raises UsageError when two jobs have the same label or an opener is not "module:function".
    """
    timings, _ = timed(jobs, device=device, options=options, progress=progress)
    return {timing.job.label: timing.latency() for timing in timings}


def timed(
    jobs: Sequence[Job],
    *,
    device: Device = DEVICE,
    options: ProfileOptions | None = None,
    progress: Progress | None = None,
) -> tuple[list[Timing], Interference]:
    """As `measure`, with every sample, and with how quiet the device was."""
    _check(jobs)
    options, progress = options or ProfileOptions(), progress or Silent()
    running = [Timing(job) for job in jobs]
    with _ended(running):
        for _ in range(options.cold_starts):
            _start(running, device, options, progress)
            _cold(running)
        disturbance = _warm(running, device, options, progress)
    return running, disturbance


@contextmanager
def _ended(running: Iterable[Timing]) -> Iterator[None]:
    """Ends the workers with the block: politely, which takes seconds where they work, or at once after Ctrl-C."""
    try:
        yield
    except BaseException:
        _kill(running)
        raise
    finally:
        for state in running:
            if state.worker is not None:
                state.worker.stop()


def _kill(running: Iterable[Timing]) -> None:
    for state in running:
        if state.worker is not None:
            state.worker.kill()


def _check(jobs: Sequence[Job]) -> None:
    labels = [job.label for job in jobs]
    for job in jobs:
        if labels.count(job.label) > 1:
            raise UsageError(f"two jobs have the label '{job.label}': give each its own")
        assert job.command.argv, "a program"


def _alive(running: Iterable[Timing]) -> list[Timing]:
    return [state for state in running if not state.reason]


def _attempt(state: Timing, action: Callable[[Timing], None]) -> None:
    """A failure of one worker is recorded with its job, and ends this job only."""
    try:
        action(state)
    except DeviceError as e:
        state.reason = _without_folders(str(e), state.job)
        if state.worker is not None:
            state.worker.stop()


def _without_folders(text: str, job: Job) -> str:
    """The text with the job's paths cut to their names: reports hold no local path."""
    for path in job.paths:
        text = text.replace(path, Path(path).name)
    return text


def _start(running: list[Timing], device: Device, options: ProfileOptions, progress: Progress) -> None:
    """Fresh workers for all jobs that have not failed, up to the end of their imports."""

    def start(state: Timing) -> None:
        if state.worker is not None:
            state.worker.stop()
        state.worker = Worker(device, state.job.command, timeout_s=options.timeout_seconds)
        state.worker.ready()

    alive = _alive(running)
    pool = ThreadPoolExecutor(IMPORTS_AT_ONCE)
    try:
        with progress.task("starting", len(alive)) as task:
            for done, _ in enumerate(pool.map(lambda state: _attempt(state, start), alive), start=1):
                task.update(done)
    except BaseException:  # Ctrl-C: they wait for their workers
        _kill(alive)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _cold(running: list[Timing]) -> None:
    def cold(state: Timing) -> None:
        assert state.worker is not None, "the worker was started before"
        state.cold.append(state.worker.ask("open", *state.job.opening))
        state.cpu_ms = state.cold[-1]["cpu_ms"]

    for state in _alive(running):
        _attempt(state, cold)


def _warm(running: list[Timing], device: Device, options: ProfileOptions, progress: Progress) -> Interference:
    budget_ms = options.max_seconds * 1000.0

    def measure_block(state: Timing) -> None:
        state.blocks.append(_block(state, least_runs=1, least_ms=BLOCK_MS, most_ms=budget_ms - _spent_ms(state)))
        _judge(state, options, budget_ms)

    for state in _alive(running):
        _attempt(state, lambda state: _warm_up(state, options))
    before = _used(device, running)
    total, order = len(_alive(running)), random.Random(0)
    with progress.task("timing", total) as task:
        while pending := [state for state in _alive(running) if not state.done]:
            order.shuffle(pending)
            for state in pending:
                _attempt(state, measure_block)
            task.update(total - sum(not state.done for state in _alive(running)))
    return interference(before, _used(device, running))


def _warm_up(state: Timing, options: ProfileOptions) -> None:
    """Blocks until the medians of two in a row agree, within the time for it."""
    least_ms, most_ms = 1000.0 * options.warm_seconds, 250.0 * options.max_seconds
    spent = 0.0
    while spent < most_ms and not (state.stable and spent >= least_ms):
        state.warm_up.append(_block(state, least_runs=WARM_RUNS, least_ms=BLOCK_MS, most_ms=most_ms - spent))
        spent += float(state.warm_up[-1].sum())
        medians = [float(np.median(block)) for block in state.warm_up[-2:]]
        state.stable = len(medians) == 2 and max(medians) <= (1 + WARM_AGREE) * min(medians)


def _used(device: Device, running: Iterable[Timing]) -> Usage:
    probes: list[float] = []

    def probe(state: Timing) -> None:
        assert state.worker is not None, "the worker was started before"
        answer = state.worker.ask("probe")
        state.cpu_ms = answer["cpu_ms"]
        probes.append(answer["probe_ms"])

    for state in running:
        if not probes and not state.reason:
            _attempt(state, probe)
    ours_s = sum(state.cpu_ms for state in running) / 1000.0
    return Usage(time.monotonic(), device.busy(), ours_s, probes[0] if probes else None)


def _spent_ms(state: Timing) -> float:
    return float(sum(block.sum() for block in state.blocks))


def _block(state: Timing, *, least_runs: int, least_ms: float, most_ms: float) -> Samples:
    assert state.worker is not None, "the worker was started before"
    answer = state.worker.ask("block", least_runs, least_ms, most_ms)
    state.cpu_ms = answer["cpu_ms"]
    return np.asarray(answer["samples_ms"], dtype=np.float64)


def _judge(state: Timing, options: ProfileOptions, budget_ms: float) -> None:
    """Done when the median is known well enough, or when the time is up."""
    spent_ms = _spent_ms(state)
    enough = sum(map(len, state.blocks)) >= options.min_runs and spent_ms >= 1000.0 * options.min_seconds
    is_over = spent_ms >= budget_ms
    if enough and (is_over or len(state.blocks) >= state.next_look):
        state.converged = len(state.blocks) >= LEAST_BLOCKS and summarize(state.blocks).within(PRECISION)
        state.next_look = math.ceil(LOOK_GROWTH * len(state.blocks))
    state.done = state.converged or is_over
