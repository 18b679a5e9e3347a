"""A file that is to be measured: put on a device with its inputs and its runner, and held against this machine."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen import noise
from edgegen.errors import DataError, UsageError
from edgegen.formats.manifest import MANIFEST
from edgegen.inspection.record import Value, inspect
from edgegen.profilers.devices.device import Command, Device
from edgegen.profilers.schema import FileFacts, Numerics, Tensor
from edgegen.profilers.timing.jobs import FileJob
from edgegen.profilers.timing.process import Worker
from edgegen.support import isolation
from edgegen.support.extras import require, version_of
from edgegen.support.storage import read_json, sha256_of
from edgegen.support.vendor_logs import EXECUTORCH, quiet

FORMATS = {".onnx": "onnx", ".pte": "pte", ".mlpackage": "mlpackage"}
EXTRAS = {"onnx": "onnx", "pte": "executorch", "mlpackage": "coreml"}  # by format: what the reference needs here
# Two builds of one runtime differ by the order of sums, 100 dB and more; of 8-bit files a number on the edge may round
# the other way, 45 dB (examples/bench_arm.json). A wrong kernel gave 2 dB.
LEAST_SNR_DB = 40.0
SEED = 0


@dataclass
class Candidate:
    """A file to be measured, with all that is known of it; `put` once it lies on the device.

    `failed` says why it does not run there, `runtime` what its runner says that it is.
    """

    path: Path
    facts: FileFacts
    parity: str | None
    arrays: list[NDArray[Any]]
    inputs: list[str] = field(default_factory=list)
    command: Command | None = None
    numerics: Numerics = field(default_factory=lambda: Numerics(reference=None, snr_db=None, max_abs=None, passed=None))
    failed: str = ""
    runtime: str | None = None

    @property
    def may_be_timed(self) -> bool:
        return not self.failed and self.numerics.passed is not False


def put_file(path: Path, device: Device, temporary: Path) -> Candidate:
    """A file on the device with its inputs and its runner, ready to be started."""
    candidate = candidate_of(path)
    put(candidate, device, temporary)
    return candidate


def candidate_of(path: Path) -> Candidate:
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot measure {path.name}: there are runners for {', '.join(FORMATS)}")
    require(EXTRAS[FORMATS[path.suffix]], purpose=f"measuring {path.name}")
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


def put(candidate: Candidate, device: Device, temporary: Path) -> None:
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
    candidate.command = device.runner(candidate.facts.format, there)


def job_of(label: str, candidate: Candidate, threads: int) -> FileJob:
    assert candidate.command is not None, "put before"
    return FileJob(label, candidate.command, (threads, *candidate.inputs), [str(candidate.path.resolve())])


def numerics_of(candidate: Candidate, device: Device, temporary: Path, threads: int, timeout_s: float) -> Numerics:
    """One inference there against one here, in Python. Raises DeviceError where it does not run."""
    if candidate.parity == "failed":
        return Numerics(reference="PyTorch", snr_db=None, max_abs=None, passed=False, reason="manifest: parity failed")
    assert candidate.command is not None, "put before"
    output = temporary / f"{candidate.path.name}.out"
    expected = temporary / f"{candidate.path.name}.expected.npy"
    worker = Worker(device, candidate.command, timeout_s=timeout_s)
    try:
        worker.ask("open", threads, *candidate.inputs)
        place = device.place(output.name)
        worker.ask("run", place)
        candidate.runtime = worker.runtime
        device.get(place, output)
    finally:
        worker.stop()
    arrays = temporary / f"{candidate.path.name}.inputs.npz"
    np.savez(arrays, *candidate.arrays)
    arguments = {"path": str(candidate.path), "inputs": str(arrays), "expected": str(expected)}
    about = isolation.call("edgegen.profilers.files.subject:reference_output", arguments).value
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
    elif path.endswith(".mlpackage"):
        from edgegen.exporters.coreml.evaluator.program import MilEvaluator

        evaluator = MilEvaluator(Path(path))
        names = [slot.name for slot in evaluator.program.inputs]
        made = evaluator(dict(zip(names, arrays, strict=True)))[evaluator.program.outputs[0].name]
        np.save(expected, made, allow_pickle=False)
        return evaluator.method
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
