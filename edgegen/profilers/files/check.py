"""Whether a file computes on a device what it computes on this machine: one inference there against one here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DeviceError
from edgegen.profilers.devices.device import Device
from edgegen.profilers.files.subject import Placement
from edgegen.profilers.runners.programs import CPU
from edgegen.profilers.schema import Numerics
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.trace.operators import read_trace
from edgegen.support import isolation
from edgegen.support.extras import version_of
from edgegen.support.memory import memory_limit_of
from edgegen.support.progress import Progress
from edgegen.support.vendor_logs import EXECUTORCH, quiet

# Two builds of one runtime differ by the order of sums, 100 dB and more; of 8-bit files a number on the edge may round
# the other way, 45 dB (examples/bench_arm.json). A wrong kernel gave 2 dB.
LEAST_SNR_DB = 40.0
NOT_COMPARED = Numerics(reference=None, snr_db=None, max_abs=None, passed=None)


@dataclass(frozen=True)
class Check:
    """A placement after its first inference: `failure` says why it does not run, `runtime` is the runner's own name.

    `notes` are facts for its verdict that do not make it a worse one.
    """

    placement: Placement
    numerics: Numerics = NOT_COMPARED
    runtime: str | None = None
    failure: str = ""
    notes: tuple[str, ...] = ()

    @property
    def may_be_timed(self) -> bool:
        return not self.failure and self.numerics.passed is not False


def check_files(
    placements: Sequence[Placement],
    device: Device,
    temporary: Path,
    *,
    threads: int,
    timeout_s: float,
    progress: Progress,
) -> list[Check]:
    """One inference of each file on the device; those that run are compared with this machine, in `temporary`."""
    checks = []
    with progress.task("checking", len(placements)) as task:
        for number, placement in enumerate(placements, start=1):
            checks.append(_run(placement, device, temporary, threads, timeout_s))
            task.update(number, placement.subject.facts.name)
    return _compare(checks, temporary)


def _run(placement: Placement, device: Device, temporary: Path, threads: int, timeout_s: float) -> Check:
    """One inference on the device; its output goes to `_output`. A file that is known to be wrong is not run."""
    path = placement.subject.path
    if placement.subject.parity == "failed":
        return Check(placement, _failed("PyTorch", "manifest: parity failed"))
    try:
        with Worker(device, placement.command, timeout_s=timeout_s) as worker:
            worker.ready().ask("open", threads, *placement.inputs)
            output = _output(placement, temporary)
            remote_path = device.place(output.name)
            worker.ask("run", remote_path)
            device.get(remote_path, output)
            notes = () if placement.provider == CPU else (_taken(placement.provider, worker, device, temporary),)
    except DeviceError as e:
        return Check(placement, failure=str(e).replace(str(path.resolve()), path.name))
    return Check(placement, runtime=worker.runtime, notes=notes)


def _taken(provider: str, worker: Worker, device: Device, temporary: Path) -> str:
    """How many operations a provider took. Raises DeviceError where none: ONNX Runtime does not say so itself."""
    remote_path, trace = device.place("operations.trace"), temporary / "operations.trace"
    worker.ask("trace", 1, remote_path)
    device.get(remote_path, trace)
    leaves = read_trace(form="onnx", trace=str(trace))
    count = sum(leaf.place.lower() == f"{provider}executionprovider" for leaf in leaves)
    if not count:
        raise DeviceError(f"{provider} takes no operation of it: all {len(leaves)} would run on the CPU")
    return f"{count} of {len(leaves)} operations run on {provider}, the others on the CPU"


def _output(placement: Placement, temporary: Path) -> Path:
    return temporary / f"{placement.subject.facts.name}.out"


def _compare(checks: Sequence[Check], temporary: Path) -> list[Check]:
    """The checks with `numerics`. One process computes all references: importing a runtime takes seconds."""
    rows, indices = [], []
    for index, check in enumerate(checks):
        if check.runtime is None:
            continue
        subject = check.placement.subject
        names = {key: str(temporary / f"{subject.facts.name}.{key}") for key in ("inputs.npz", "expected.npy")}
        np.savez(names["inputs.npz"], *subject.arrays)
        rows.append(
            {
                "path": str(subject.path),
                "form": subject.facts.format,
                "inputs": names["inputs.npz"],
                "expected": names["expected.npy"],
            }
        )
        indices.append(index)
    compared = list(checks)
    if not rows:
        return compared
    limit = max(memory_limit_of(Path(row["path"])) for row in rows)
    function = "edgegen.profilers.files.check:reference_outputs"
    references = isolation.call(function, {"rows": rows}, memory_limit=limit).value
    for index, row, reference in zip(indices, rows, references, strict=True):
        expected = np.load(row["expected"], allow_pickle=False)
        output = np.fromfile(_output(checks[index].placement, temporary), expected.dtype)
        numerics = compare_outputs(expected.reshape(-1), output, reference=reference)
        compared[index] = replace(checks[index], numerics=numerics)
    return compared


def reference_outputs(*, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The first output of each file on this machine, to its file `expected`; returns what ran each.

    For `isolation.call`: the keys of a row are those of `reference_output`.
    """
    return [reference_output(**row) for row in rows]


def reference_output(*, path: str, form: str, inputs: str, expected: str) -> str:
    """One file's first output on the arrays in `inputs`, to `expected`; returns what ran it."""
    with np.load(inputs, allow_pickle=False) as archive:
        arrays = [archive[name] for name in archive.files]
    output, reference = {"onnx": _by_onnxruntime, "pte": _by_executorch, "mlpackage": _by_evaluator}[form](path, arrays)
    np.save(expected, output, allow_pickle=False)
    return reference


def _by_onnxruntime(path: str, arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))[0], _in_python("onnxruntime")


def _by_executorch(path: str, arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], str]:
    import torch

    with quiet(EXECUTORCH):
        from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    outputs = program.load_method("forward").execute([torch.from_numpy(array) for array in arrays])
    return outputs[0].numpy().copy(), _in_python("executorch")


def _by_evaluator(path: str, arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], str]:
    from edgegen.exporters.coreml.evaluator.program import MilEvaluator

    evaluator = MilEvaluator(Path(path))
    names = [slot.name for slot in evaluator.program.inputs]
    outputs = evaluator(dict(zip(names, arrays, strict=True)))
    return outputs[evaluator.program.outputs[0].name], evaluator.method


def _in_python(runtime: str) -> str:
    return f"{runtime} {version_of(runtime)} in Python, on the machine that ran edgegen"


def compare_outputs(expected: NDArray[Any], output: NDArray[Any], *, reference: str) -> Numerics:
    """Signal-to-noise ratio of two flat arrays, 10 log10(sum expected^2 / sum (expected - output)^2)."""
    if expected.shape != output.shape:
        return _failed(reference, f"{output.size} numbers, not {expected.size}")
    if not expected.size:
        return _failed(reference, "an output without numbers")
    if not np.isfinite(output).all():
        return _failed(reference, "numbers not finite")
    difference = expected.astype(np.float64) - output
    error, signal = float((difference**2).sum()), float((expected.astype(np.float64) ** 2).sum())
    largest = float(np.abs(difference).max())
    if error == 0:
        return Numerics(reference=reference, snr_db=None, max_abs=0.0, passed=True)
    snr_db = float(10 * np.log10(max(signal, 1e-300) / error))
    reason = "" if snr_db >= LEAST_SNR_DB else f"{snr_db:.1f} dB, at least {LEAST_SNR_DB:g} dB are asked"
    return Numerics(reference=reference, snr_db=snr_db, max_abs=largest, passed=not reason, reason=reason)


def _failed(reference: str, reason: str) -> Numerics:
    return Numerics(reference=reference, snr_db=None, max_abs=None, passed=False, reason=reason)
