"""Exported files measured on a device: first whether they compute there what they should, then how fast."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from edgegen import registry
from edgegen.errors import EdgegenError, UsageError
from edgegen.profilers.devices.device import Device
from edgegen.profilers.files.check import Check, check_files
from edgegen.profilers.files.record import measured_file, with_operations
from edgegen.profilers.files.subject import place, read_subject
from edgegen.profilers.files.trace import TRACED, traced
from edgegen.profilers.runners.programs import CPU
from edgegen.profilers.schema import Format, MeasuredFile, Profile, label
from edgegen.profilers.timing.interference import Interference
from edgegen.profilers.timing.jobs import Job
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.protocol import PROFILES, ProfileOptions, Timing, timed
from edgegen.profilers.timing.sustained import sustained
from edgegen.profilers.timing.thermal import cooled, throttled
from edgegen.profilers.trace.operators import OperatorTime, by_kind
from edgegen.support.extras import version_of
from edgegen.support.progress import Progress
from edgegen.support.schema import utc_now
from edgegen.support.scratch import temporary_folder

CHANGING = ("load_average", "battery_c", "thermal_status")  # of what a device says of itself
EMULATED_SLOWER = 15
TRY_S = 60.0  # for a runner to say that it is ready


@dataclass(frozen=True)
class _Wishes:
    """What is to be measured of the files, as `profile_files` describes it."""

    profile: str
    threads: Sequence[int]
    per_op: bool
    for_minutes: bool
    options: ProfileOptions
    provider: str = CPU
    names: Sequence[str] = ()


def profile_files(
    files: Sequence[Path],
    device: Device,
    *,
    profile: str = "quick",
    threads: Sequence[int] = (1,),
    per_op: bool = False,
    for_minutes: bool = False,
    provider: str = CPU,
    names: Sequence[str] = (),
    options: ProfileOptions | None = None,
    progress: Progress,
) -> Profile:
    """Measures all files in turn, each with each number of threads, under `names`, where their own are not different.

    A file that computes something else than here has no latency. `for_minutes` adds how fast each still is after five
    minutes without a pause; `provider` is one of `programs.PROVIDERS`. Raises DataError and UsageError for a file that
    cannot be measured at all, DeviceError where the device cannot be used.
    """
    wishes = _Wishes(profile, threads, per_op, for_minutes, options or PROFILES[profile], provider, names)
    return _measure(files, device, (), wishes, progress)[0]


def profile_beside(
    files: Sequence[Path], jobs: Sequence[Job], device: Device, *, options: ProfileOptions, progress: Progress
) -> tuple[Profile, list[Timing], Interference]:
    """As `profile_files` with one thread; the jobs are timed in turn with the files, and have timings of their own."""
    return _measure(files, device, jobs, _Wishes("quick", (1,), False, False, options), progress)


def _measure(
    files: Sequence[Path], device: Device, jobs: Sequence[Job], wishes: _Wishes, progress: Progress
) -> tuple[Profile, list[Timing], Interference]:
    with ExitStack() as stack, temporary_folder() as folder:
        stack.callback(device.close)
        if wishes.per_op and not device.traces:
            raise UsageError(f"--per-op: {device.name} has no profiler of single operations; leave it out")
        if wishes.provider != CPU and not device.providers:
            raise UsageError(f"--provider {wishes.provider}: {device.name} has no providers; leave it out")
        names = wishes.names or [path.name for path in files]
        if len(set(names)) < len(files):
            raise UsageError("two files have one name; measure them one after the other, and compare the two results")
        temporary = Path(folder)
        subjects = [read_subject(path, name) for path, name in zip(files, names, strict=True)]
        target = device.probe()
        checks = check_files(
            [place(subject, device, temporary, provider=wishes.provider) for subject in subjects],
            device,
            temporary,
            threads=wishes.threads[0],
            timeout_s=wishes.options.timeout_seconds * (EMULATED_SLOWER if target["emulated"] else 1),
            progress=progress,
        )
        rows = [(check, count) for check in checks for count in wishes.threads]
        timed_rows = [row for row in rows if row[0].may_be_timed and not target["emulated"]]
        file_jobs = [_job(check, count) for check, count in timed_rows]
        timings, interference, after = _timed_when_cool([*file_jobs, *jobs], device, target, wishes.options, progress)
        by_label = {timing.job.label: timing for timing in timings}
        measured = []
        for check, count in rows:
            record = measured_file(check, count, by_label.get(_label(check, count)), interference, target=target)
            measured.append(_with_passes(record, check, count, device, temporary, wishes, progress))
    profile = Profile(
        created=utc_now(),
        tool=f"edgegen {version_of('edgegen')}",
        device=device.name,
        target=target,
        after={name: after[name] for name in CHANGING},
        profile="full" if wishes.profile == "full" else "quick",
        others_cores=interference.others_cores,
        stolen_cores=interference.stolen_cores,
        drift=interference.drift,
        results=tuple(measured),
    )
    return profile, timings[len(file_jobs) :], interference


def _label(check: Check, threads: int) -> str:
    return label(check.placement.subject.facts.name, threads)


def _job(check: Check, threads: int) -> Job:
    return check.placement.job(_label(check, threads), threads)


def _with_passes(
    record: MeasuredFile,
    check: Check,
    threads: int,
    device: Device,
    temporary: Path,
    wishes: _Wishes,
    progress: Progress,
) -> MeasuredFile:
    """The record with the passes that are asked for beside the latency: a traced one, and one without a pause."""
    timeout_s = wishes.options.timeout_seconds
    if record.latency is None:
        return record
    if wishes.per_op:
        leaves = traced(check.placement, threads, device, temporary, timeout_s=timeout_s)
        record = with_operations(record, leaves)
    if wishes.for_minutes:
        run = sustained(_job(check, threads), device, timeout_s=timeout_s, progress=progress)
        record = record.model_copy(update={"sustained": run})
    return record


def _timed_when_cool(
    jobs: Sequence[Job], device: Device, target: Mapping[str, Any], options: ProfileOptions, progress: Progress
) -> tuple[list[Timing], Interference, Mapping[str, Any]]:
    """As `timed`, once the device is cool; once more where it grew too warm meanwhile. Also its state afterwards."""
    state = target
    for last in (False, True):
        state = cooled(device, state, progress)
        timings, interference = timed(jobs, device=device, options=options, progress=progress)
        state = device.probe()
        if last or not throttled(state):
            break
    return timings, replace(interference, heat=throttled(state)), state


def connect(text: str) -> Device:
    """The device of a name: "host", "ssh:USER@HOST". Raises UsageError for one that is not there."""
    name, _, place = text.partition(":")
    device: Device = registry.load("device", name)(place)
    return device


def runners_of(device: Device) -> dict[str, str]:
    """By suffix, what would run such files on the device, or why nothing does: each runner is started once."""
    runners: dict[str, str] = {}
    for form in get_args(Format):
        suffix = f".{form}"
        try:
            with Worker(device, device.runner(form, f"none{suffix}"), timeout_s=TRY_S) as worker:
                runners[suffix] = worker.ready().runtime
        except EdgegenError as e:
            runners[suffix] = f"no: {e}"
    return runners


def per_operation(path: Path, device: Device, *, threads: int = 1, runs: int = TRACED) -> list[OperatorTime]:
    """The time of a file by kind of operation, the slowest first."""
    with ExitStack() as stack, temporary_folder() as folder:
        stack.callback(device.close)
        placement = place(read_subject(path), device, Path(folder))
        timeout_s = PROFILES["quick"].timeout_seconds
        return by_kind(traced(placement, threads, device, Path(folder), timeout_s=timeout_s, runs=runs))
