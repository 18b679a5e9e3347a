"""Exported files measured on a device: first whether they compute there what they should, then how fast."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen import child, noise, registry
from edgegen.build import MANIFEST
from edgegen.errors import DataError, DeviceError, EdgegenError, UsageError
from edgegen.exporters.inspection import Value, inspect
from edgegen.extras import require, version_of
from edgegen.profilers.device import Command, Device
from edgegen.profilers.operators import FIRST_RUNS, OperatorTime
from edgegen.profilers.process import Worker
from edgegen.profilers.protocol import PROFILES, Noise, ProfileOptions, Timing, timed
from edgegen.profilers.result import (
    Cold,
    Config,
    FileFacts,
    Latencies,
    Numerics,
    OpRow,
    Profile,
    Result,
    Tensor,
    Verdict,
    WarmUp,
)
from edgegen.profilers.stats import summarize
from edgegen.progress import Progress
from edgegen.quiet import EXECUTORCH, quiet
from edgegen.storage import read_json, sha256_of

FORMATS = {".onnx": "onnx", ".pte": "pte"}
# Two builds of one runtime differ by the order of sums, 100 dB and more; of 8-bit files a number on the edge may round
# the other way, 45 dB (examples/bench_arm.json). A wrong kernel gave 2 dB.
LEAST_SNR_DB = 40.0
TRACED = 10  # inferences of a traced pass
TRY_S = 60.0  # for a runner to say that it is ready
SEED = 0


@dataclass(frozen=True)
class FileJob:
    """A file on a device in its runtime's runner."""

    label: str
    command: Command
    opening: Sequence[object]
    paths: Sequence[str] = ()


@dataclass
class Candidate:
    """A file to be measured, with all that is known of it; `put` once it lies on the device."""

    path: Path
    facts: FileFacts
    parity: str | None
    arrays: list[NDArray[Any]]
    inputs: list[str] = field(default_factory=list)
    command: Command | None = None
    numerics: Numerics = field(default_factory=lambda: Numerics(reference=None, snr_db=None, max_abs=None, passed=None))


def profile_files(
    files: Sequence[Path],
    device: Device,
    *,
    profile: str = "quick",
    threads: Sequence[int] = (1,),
    per_op: bool = False,
    options: ProfileOptions | None = None,
    progress: Progress,
) -> Profile:
    """Measures all files in turn, each with each number of threads.

    A file that computes something else than here has no latency. Raises DataError and UsageError for a file that
    cannot be measured at all, DeviceError where the device cannot be used.
    """
    if len({path.name for path in files}) < len(files):
        raise UsageError("two files have one name; measure them one after the other, and compare the two results")
    candidates = [_candidate(path) for path in files]
    chosen = options or PROFILES[profile]
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        stack.callback(device.close)
        target = device.probe()
        for candidate in candidates:
            _put(candidate, device, Path(temporary))
            candidate.numerics = _numerics(candidate, device, Path(temporary), threads[0], chosen.timeout_seconds)
        jobs = {
            f"{candidate.path.name}, {count} thread{'s' * (count > 1)}": (candidate, count)
            for candidate in candidates
            for count in threads
        }
        work = [_job(label, *jobs[label]) for label in jobs if jobs[label][0].numerics.passed is not False]
        timings, noise_found = timed(work, device=device, options=chosen, progress=progress)
        by_label = {timing.job.label: timing for timing in timings}
        results = []
        for label, (candidate, count) in jobs.items():
            result = result_of(candidate, count, by_label.get(label), noise_found)
            if per_op and result.latency is not None:
                result = result.model_copy(update={"ops": _ops(candidate, count, device, Path(temporary), chosen)})
            results.append(result)
    return Profile(
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool=f"edgegen {version_of('edgegen')}",
        device=device.name,
        target=target,
        profile="full" if profile == "full" else "quick",
        others_cores=noise_found.others_cores,
        stolen_cores=noise_found.stolen_cores,
        results=tuple(results),
    )


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
            if form == "onnx":
                worker = Worker(device, device.onnx_runner("none"), timeout_s=TRY_S)
                worker.stop()
                found[suffix] = "onnxruntime, in Python"
            else:
                worker = Worker(device, device.pte_runner("none"), timeout_s=TRY_S)
                worker.stop()
                found[suffix] = f"executorch {version_of('executorch')}, in C++"
        except EdgegenError as e:
            found[suffix] = f"no: {e}"
    return found


def per_operation(path: Path, device: Device, *, threads: int = 1, runs: int = TRACED) -> list[OperatorTime]:
    """The time of a file by kind of operation, the slowest first."""
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        candidate = put_file(path, device, Path(temporary))
        return _traced(candidate, threads, device, Path(temporary), PROFILES["quick"], runs)


def put_file(path: Path, device: Device, temporary: Path) -> Candidate:
    """A file on the device with its inputs and its runner, ready to be started."""
    candidate = _candidate(path)
    _put(candidate, device, temporary)
    return candidate


def _candidate(path: Path) -> Candidate:
    if path.suffix not in FORMATS:
        raise UsageError(
            f"cannot measure {path.name}: there are runners for {' and '.join(FORMATS)}; a .mlpackage runs on Apple's "
            "systems only"
        )
    found = inspect(path)
    inputs = tuple(_tensor(value) for value in found.main.inputs)
    row = _row(path)
    facts = FileFacts(
        name=path.name,
        format=FORMATS[path.suffix],
        sha256=sha256_of(path),
        nbytes=found.nbytes,
        scheme=row.get("scheme"),
        inputs=inputs,
    )
    return Candidate(path, facts, row.get("parity", {}).get("status"), [_numbers(one) for one in inputs])


def _row(path: Path) -> dict[str, Any]:
    """What manifest.json beside the file says of it, if it is still the same file."""
    manifest = path.parent / MANIFEST
    if not manifest.is_file():
        return {}
    rows: list[dict[str, Any]] = read_json(manifest).get("artifacts", [])
    digest = sha256_of(path)
    return next((row for row in rows if row["file"] == path.name and row["sha256"] == digest), {})


def _tensor(value: Value) -> Tensor:
    shape = [1 if index == 0 and not isinstance(size, int) else size for index, size in enumerate(value.shape)]
    symbolic = [str(size) for size in shape if not isinstance(size, int)]
    if symbolic:
        raise UsageError(
            f"the input {value.name} has open sizes ({', '.join(symbolic)}): export the size to be measured"
        )
    return Tensor(name=value.name, dtype=value.dtype, shape=tuple(int(size) for size in shape))


def _numbers(tensor: Tensor) -> NDArray[Any]:
    """Noise, the same on every machine; zeros where whole numbers are wanted: the first class."""
    if tensor.dtype.startswith("float"):
        made: NDArray[Any] = noise.normal(SEED, 0, 1, tensor.shape)[0].astype(tensor.dtype)
        return made
    try:
        return np.zeros(tensor.shape, tensor.dtype)
    except TypeError as e:
        raise DataError(f"the input {tensor.name} is of {tensor.dtype}, which edgegen cannot make up") from e


def _put(candidate: Candidate, device: Device, temporary: Path) -> None:
    """The file, its inputs and its runner, onto the device."""
    path = candidate.path
    beside = path.with_name(f"{path.name}.data")  # weights above 2 GB
    if beside.exists():
        device.put(beside, beside.name)
    there = device.put(path, path.name)
    for number, (tensor, array) in enumerate(zip(candidate.facts.inputs, candidate.arrays, strict=True)):
        local = temporary / f"{path.name}.{number}.bin"
        array.tofile(local)
        candidate.inputs.append(f"{'x'.join(map(str, tensor.shape))}:{device.put(local, local.name)}")
    if candidate.facts.format == "onnx":
        require("onnx", purpose="measuring an ONNX file")
        candidate.command = device.onnx_runner(there)
    else:
        candidate.command = device.pte_runner(there)


def _job(label: str, candidate: Candidate, threads: int) -> FileJob:
    assert candidate.command is not None, "put before"
    return FileJob(label, candidate.command, (threads, *candidate.inputs), [str(candidate.path.resolve())])


def _numerics(candidate: Candidate, device: Device, temporary: Path, threads: int, timeout_s: float) -> Numerics:
    """One inference there against one here, in the runtime's Python bindings."""
    if candidate.parity == "failed":
        return Numerics(reference="PyTorch", snr_db=None, max_abs=None, passed=False, reason="manifest: parity failed")
    assert candidate.command is not None, "put before"
    output = temporary / f"{candidate.path.name}.out"
    expected = temporary / f"{candidate.path.name}.expected.npy"
    try:
        worker = Worker(device, candidate.command, timeout_s=timeout_s)
        try:
            worker.ask("open", threads, *candidate.inputs)
            place = device.place(output.name)
            worker.ask("run", place)
            device.get(place, output)
        finally:
            worker.stop()
    except DeviceError as e:
        return Numerics(reference=None, snr_db=None, max_abs=None, passed=False, reason=str(e))
    arrays = temporary / f"{candidate.path.name}.inputs.npz"
    np.savez(arrays, *candidate.arrays)
    arguments = {"path": str(candidate.path), "inputs": str(arrays), "expected": str(expected)}
    about = child.call("edgegen.profiling:reference_output", arguments).value
    wanted = np.load(expected, allow_pickle=False)
    got = np.fromfile(output, wanted.dtype)
    return compare_outputs(wanted.reshape(-1), got, reference=about)


def reference_output(*, path: str, inputs: str, expected: str) -> str:
    """The file's first output on this machine, to the file `expected`; returns what ran it. For `child.call`."""
    with np.load(inputs, allow_pickle=False) as archive:
        arrays = [archive[name] for name in archive.files]
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        made = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    else:
        import torch

        with quiet(EXECUTORCH):
            from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        made = program.load_method("forward").execute([torch.from_numpy(one) for one in arrays])[0].numpy()
    np.save(expected, made, allow_pickle=False)
    runtime = "onnxruntime" if path.endswith(".onnx") else "executorch"
    return f"{runtime} {version_of(runtime)} in Python, on the machine that ran edgegen"


def compare_outputs(wanted: NDArray[Any], got: NDArray[Any], *, reference: str) -> Numerics:
    """Signal-to-noise ratio of two flat arrays, 10 log10(sum wanted^2 / sum (wanted - got)^2)."""
    if wanted.shape != got.shape:
        reason = f"{got.size} numbers, not {wanted.size}"
        return Numerics(reference=reference, snr_db=None, max_abs=None, passed=False, reason=reason)
    if not np.isfinite(got).all():
        return Numerics(reference=reference, snr_db=None, max_abs=None, passed=False, reason="numbers not finite")
    difference = wanted.astype(np.float64) - got
    error, signal = float((difference**2).sum()), float((wanted.astype(np.float64) ** 2).sum())
    largest = float(np.abs(difference).max())
    if error == 0:
        return Numerics(reference=reference, snr_db=None, max_abs=0.0, passed=True)
    snr = float(10 * np.log10(max(signal, 1e-300) / error))
    reason = "" if snr >= LEAST_SNR_DB else f"{snr:.1f} dB, at least {LEAST_SNR_DB:g} dB are asked"
    return Numerics(reference=reference, snr_db=snr, max_abs=largest, passed=not reason, reason=reason)


def result_of(candidate: Candidate, threads: int, timing: Timing | None, noise_found: Noise) -> Result:
    """The record of a file with so many threads; `timing` is None where it was not run, because it is wrong."""
    runtime = "onnxruntime" if candidate.facts.format == "onnx" else "executorch"
    config = Config(
        runner="onnx_runner.py" if candidate.facts.format == "onnx" else "pte_runner",
        runtime=f"{runtime} {version_of(runtime)}",
        threads_requested=threads,
        threads_actual=None if timing is None or not timing.cold else timing.cold[-1]["threads"],
    )
    known = Result(
        artifact=candidate.facts,
        config=config,
        numerics=candidate.numerics,
        verdict=Verdict(status="failed", reasons=(f"wrong: {candidate.numerics.reason}",)),
    )
    if timing is None:
        return known
    if timing.reason:
        return known.model_copy(update={"verdict": Verdict(status="failed", reasons=(timing.reason,))})
    summary = summarize(timing.blocks)
    samples = np.concatenate(timing.blocks)
    reasons = (*noise_found.reasons(), *timing.reasons())
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
        verdict=Verdict(status="noisy" if reasons else "ok", reasons=reasons),
    )


def _ops(
    candidate: Candidate, threads: int, device: Device, temporary: Path, options: ProfileOptions
) -> tuple[OpRow, ...]:
    rows = _traced(candidate, threads, device, temporary, options, TRACED)
    total = sum(row.ms for row in rows) or 1.0
    return tuple(OpRow(kind=row.kind, count=row.count, ms=row.ms, share=row.ms / total) for row in rows)


def _traced(
    candidate: Candidate, threads: int, device: Device, temporary: Path, options: ProfileOptions, runs: int
) -> list[OperatorTime]:
    """A process of its own, because tracing slows down and takes memory."""
    assert candidate.command is not None, "put before"
    trace = temporary / f"{candidate.path.name}.trace"
    worker = Worker(device, candidate.command, timeout_s=options.timeout_seconds)
    try:
        worker.ask("open", threads, *candidate.inputs)
        place = device.place(trace.name)
        worker.ask("trace", FIRST_RUNS + runs, place)
        device.get(place, trace)
    finally:
        worker.stop()
    arguments = {"form": candidate.facts.format, "trace": str(trace)}
    return [OperatorTime(**row) for row in child.call("edgegen.profilers.operators:by_kind", arguments).value]
