"""Exported files measured on a device: first whether they compute there what they should, then how fast."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgegen import registry
from edgegen.candidate import FORMATS, Candidate, candidate_of, job_of, numerics_of, put, put_file
from edgegen.errors import DeviceError, EdgegenError, UsageError
from edgegen.extras import version_of
from edgegen.profilers.device import Device
from edgegen.profilers.heat import cooled, throttled
from edgegen.profilers.jobs import Work
from edgegen.profilers.operators import OperatorTime, by_kind
from edgegen.profilers.process import Worker
from edgegen.profilers.protocol import PROFILES, Noise, ProfileOptions, Timing, timed
from edgegen.profilers.result import (
    Cold,
    Config,
    Latencies,
    LeafRow,
    OpRow,
    Profile,
    Result,
    Verdict,
    WarmUp,
)
from edgegen.profilers.stats import summarize
from edgegen.profilers.sustained import sustained
from edgegen.progress import Progress
from edgegen.tracing import TRACED, traced

CHANGING = ("load_average", "battery_c", "thermal_status")  # of what a device says of itself
EMULATED_SLOWER = 15
TRY_S = 60.0  # for a runner to say that it is ready
COARSE = 0.02  # a clock's step, relative to a median that should be known as well as that


def profile_files(
    files: Sequence[Path],
    device: Device,
    *,
    profile: str = "quick",
    threads: Sequence[int] = (1,),
    per_op: bool = False,
    for_minutes: bool = False,
    options: ProfileOptions | None = None,
    progress: Progress,
) -> Profile:
    """Measures all files in turn, each with each number of threads.

    A file that computes something else than here has no latency. `for_minutes` adds how fast each still is after five
    minutes without a pause. Raises DataError and UsageError for a file that cannot be measured at all, DeviceError
    where the device cannot be used.
    """
    chosen = options or PROFILES[profile]
    if per_op and not device.traces:
        raise UsageError(f"--per-op: {device.name} has no profiler of single operations; leave it out")
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        stack.callback(device.close)
        if len({path.name for path in files}) < len(files):
            raise UsageError("two files have one name; measure them one after the other, and compare the two results")
        candidates = [candidate_of(path) for path in files]
        target = device.probe()
        patience = chosen.timeout_seconds * (EMULATED_SLOWER if target["emulated"] else 1)
        with progress.task("checking", len(candidates)) as task:
            for number, candidate in enumerate(candidates, start=1):
                put(candidate, device, Path(temporary))
                try:
                    candidate.numerics = numerics_of(candidate, device, Path(temporary), threads[0], patience)
                except DeviceError as e:
                    candidate.failed = str(e).replace(str(candidate.path.resolve()), candidate.path.name)
                task.update(number, candidate.path.name)
        jobs = {
            f"{candidate.path.name}, {count} thread{'s' * (count > 1)}": (candidate, count)
            for candidate in candidates
            for count in threads
        }
        emulated = target["emulated"]
        work = [
            job_of(label, candidate, count)
            for label, (candidate, count) in jobs.items()
            if candidate.may_be_timed and not emulated
        ]
        timings, noise_found, after = _timed_when_cool(work, device, target, chosen, progress)
        by_label = {timing.job.label: timing for timing in timings}
        results = []
        for label, (candidate, count) in jobs.items():
            result = result_of(candidate, count, by_label.get(label), noise_found, target=target)
            if emulated and candidate.may_be_timed:
                result = result.model_copy(update={"verdict": _numbers_only(emulated)})
            if per_op and result.latency is not None:
                result = result.model_copy(update=_operations(candidate, count, device, Path(temporary), chosen))
            if for_minutes and result.latency is not None:
                job = job_of(label, candidate, count)
                found = sustained(job, device, timeout_s=chosen.timeout_seconds, progress=progress)
                result = result.model_copy(update={"sustained": found})
            results.append(result)
    return Profile(
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool=f"edgegen {version_of('edgegen')}",
        device=device.name,
        target=target,
        after={name: after[name] for name in CHANGING},
        profile="full" if profile == "full" else "quick",
        others_cores=noise_found.others_cores,
        stolen_cores=noise_found.stolen_cores,
        drift=noise_found.drift,
        results=tuple(results),
    )


def _timed_when_cool(
    work: Sequence[Work], device: Device, target: Mapping[str, Any], options: ProfileOptions, progress: Progress
) -> tuple[list[Timing], Noise, Mapping[str, Any]]:
    """As `timed`, once the device is cool; once more where it grew too warm meanwhile. Also what it says afterwards."""
    told = target
    for last in (False, True):
        told = cooled(device, told, progress)
        timings, noise = timed(work, device=device, options=options, progress=progress)
        told = device.probe()
        if last or not throttled(told):
            break
    return timings, replace(noise, heat=throttled(told)), told


def connect(text: str) -> Device:
    """The device of a name: "host", "ssh:USER@HOST". Raises UsageError for one that is not there."""
    name, _, place = text.partition(":")
    device: Device = registry.load("device", name)(place)
    return device


def runners_of(device: Device) -> dict[str, str]:
    """By form of file, what would run it on the device, or why nothing does: tried."""
    found = {}
    for suffix, form in FORMATS.items():
        try:
            worker = Worker(device, device.runner(form, f"none{suffix}"), timeout_s=TRY_S)
            worker.stop()
            found[suffix] = worker.runtime
        except EdgegenError as e:
            found[suffix] = f"no: {e}"
    return found


def per_operation(path: Path, device: Device, *, threads: int = 1, runs: int = TRACED) -> list[OperatorTime]:
    """The time of a file by kind of operation, the slowest first."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        stack.callback(device.close)
        candidate = put_file(path, device, Path(temporary))
        timeout_s = PROFILES["quick"].timeout_seconds
        return by_kind(traced(candidate, threads, device, Path(temporary), timeout_s=timeout_s, runs=runs))


def result_of(
    candidate: Candidate, threads: int, timing: Timing | None, noise_found: Noise, *, target: Mapping[str, Any]
) -> Result:
    """The record of a file with so many threads; `timing` is None where it was not run, `target` what was probed."""
    config = Config(
        runtime=candidate.runtime,
        threads_requested=threads,
        threads_actual=None if timing is None or not timing.cold else timing.cold[-1]["threads"],
    )
    known = Result(
        artifact=candidate.facts,
        config=config,
        numerics=candidate.numerics,
        verdict=Verdict(status="failed", reasons=(candidate.failed or f"wrong: {candidate.numerics.reason}",)),
    )
    if timing is None:
        return known
    if failed := timing.reason or _too_short(timing, target):
        return known.model_copy(update={"verdict": Verdict(status="failed", reasons=(failed,))})
    summary = summarize(timing.blocks)
    samples = np.concatenate(timing.blocks)
    reasons = (*noise_found.reasons(), *timing.reasons(), *_coarse(summary.p50_ms, target))
    fewer = _fewer_threads(config, target)
    return Result(
        artifact=candidate.facts,
        config=config,
        numerics=candidate.numerics,
        cold=tuple(Cold(load_ms=one["load_ms"], first_ms=one["first_ms"]) for one in timing.cold),
        warm_up=WarmUp(runs=sum(map(len, timing.warm_up)), stable=timing.stable),
        latency=Latencies(
            blocks_ms=tuple(tuple(map(float, block)) for block in timing.blocks),
            runs=summary.runs,
            p50_ms=summary.p50_ms,
            p50_ci95_ms=summary.p50_ci95_ms,
            p90_ms=summary.p90_ms,
            min_ms=float(samples.min()),
            mean_ms=float(samples.mean()),
            converged=timing.converged,
        ),
        peak_rss_bytes=timing.latency().peak_rss_bytes,
        verdict=Verdict(status="noisy" if reasons else "ok", reasons=(*reasons, *fewer)),
    )


def _too_short(timing: Timing, target: Mapping[str, Any]) -> str:
    """Why it cannot be timed with the device's clock, "" where it can."""
    times = [one[name] for one in timing.cold for name in ("load_ms", "first_ms")]
    if min(*times, *(block.min() for block in timing.blocks)) > 0:
        return ""
    return f"takes less time than the device's clock can tell ({target.get('clock_step_ms') or 0.0:g} ms): not timed"


def _coarse(p50_ms: float, target: Mapping[str, Any]) -> list[str]:
    step_ms = target.get("clock_step_ms") or 0.0
    found = f"the device's clock goes in steps of {step_ms:.3g} ms, {step_ms / p50_ms:.0%} of the median"
    return [found] if step_ms > COARSE * p50_ms else []


def _fewer_threads(config: Config, target: Mapping[str, Any]) -> list[str]:
    if config.threads_actual is None or config.threads_actual >= config.threads_requested:
        return []
    return [
        f"{config.threads_requested} threads were asked, {config.threads_actual} ran: "
        f"{target.get('limits') or 'its runtime has no more'}"
    ]


def _numbers_only(emulated: str) -> Verdict:
    reason = f"numbers only: {emulated} says nothing about a real device's time"
    return Verdict(status="ok", performance_valid=False, reasons=(reason,))


def _operations(
    candidate: Candidate, threads: int, device: Device, temporary: Path, options: ProfileOptions
) -> dict[str, tuple[OpRow, ...] | tuple[LeafRow, ...]]:
    """The rows of a result, from a traced pass."""
    found = traced(candidate, threads, device, temporary, timeout_s=options.timeout_seconds)
    total = sum(row.ms for row in found) or 1.0
    is_estimate = candidate.facts.format == "mlpackage"
    return {
        "ops": tuple(
            OpRow(kind=row.kind, count=row.count, ms=None if is_estimate else row.ms, share=row.ms / total)
            for row in by_kind(found)
        ),
        "leaves": tuple(
            LeafRow(**{**asdict(row), "ms": None if is_estimate else row.ms}, share=row.ms / total) for row in found
        ),
    }
