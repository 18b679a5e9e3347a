"""Exported files measured on a device: first whether they compute there what they should, then how fast."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgegen import registry
from edgegen.errors import DeviceError, EdgegenError, UsageError
from edgegen.profilers.devices.device import Device
from edgegen.profilers.files.record import result_of, with_operations
from edgegen.profilers.files.subject import FORMATS, Candidate, candidate_of, job_of, numerics_of, put, put_file
from edgegen.profilers.files.trace import TRACED, traced
from edgegen.profilers.schema import Profile
from edgegen.profilers.timing.jobs import Work
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.protocol import PROFILES, Noise, ProfileOptions, Timing, timed
from edgegen.profilers.timing.sustained import sustained
from edgegen.profilers.timing.thermal import cooled, throttled
from edgegen.profilers.trace.operators import OperatorTime, by_kind
from edgegen.support.extras import version_of
from edgegen.support.progress import Progress

CHANGING = ("load_average", "battery_c", "thermal_status")  # of what a device says of itself
EMULATED_SLOWER = 15
TRY_S = 60.0  # for a runner to say that it is ready


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
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        stack.callback(device.close)
        if per_op and not device.traces:
            raise UsageError(f"--per-op: {device.name} has no profiler of single operations; leave it out")
        if len({path.name for path in files}) < len(files):
            raise UsageError("two files have one name; measure them one after the other, and compare the two results")
        temporary, timeout_s = Path(folder), chosen.timeout_seconds
        candidates = [candidate_of(path) for path in files]
        target = device.probe()
        patience = EMULATED_SLOWER if target["emulated"] else 1
        _check(candidates, device, temporary, threads[0], patience * timeout_s, progress)
        jobs = {
            f"{candidate.path.name}, {count} thread{'s' * (count > 1)}": (candidate, count)
            for candidate in candidates
            for count in threads
        }
        work = [job_of(label, *job) for label, job in jobs.items() if job[0].may_be_timed and not target["emulated"]]
        timings, noise_found, after = _timed_when_cool(work, device, target, chosen, progress)
        by_label = {timing.job.label: timing for timing in timings}
        results = []
        for label, (candidate, count) in jobs.items():
            result = result_of(candidate, count, by_label.get(label), noise_found, target=target)
            if per_op and result.latency is not None:
                result = with_operations(result, traced(candidate, count, device, temporary, timeout_s=timeout_s))
            if for_minutes and result.latency is not None:
                found = sustained(job_of(label, candidate, count), device, timeout_s=timeout_s, progress=progress)
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


def _check(
    candidates: Sequence[Candidate], device: Device, temporary: Path, threads: int, timeout_s: float, progress: Progress
) -> None:
    """All files there, and each run once: `numerics`, or why it does not run."""
    with progress.task("checking", len(candidates)) as task:
        for number, candidate in enumerate(candidates, start=1):
            put(candidate, device, temporary)
            try:
                candidate.numerics = numerics_of(candidate, device, temporary, threads, timeout_s)
            except DeviceError as e:
                candidate.failed = str(e).replace(str(candidate.path.resolve()), candidate.path.name)
            task.update(number, candidate.path.name)


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
