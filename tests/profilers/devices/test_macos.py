"""The worker of Core ML packages, with a stand-in for coremltools: no Mac was here, and Core ML itself never ran."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from local_shell import Shell
from small_nets import SIGNATURE, Net

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.cli.operations import operations_table
from edgegen.errors import DeviceError, UsageError
from edgegen.exporters.coreml.evaluator.program import MilEvaluator
from edgegen.profilers.devices.host import HostDevice
from edgegen.profilers.devices.macos import MacDevice, connect
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.files.subject import read_subject
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.program.one_step import OneStep
from edgegen.support.progress import Silent

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)
# Answers the recorded inputs with the recorded output, and knows as much of the API as the worker uses.
STAND_IN = """
import enum, json
from pathlib import Path
from types import SimpleNamespace as Thing
import numpy as np

__version__ = "stand-in"
ComputeUnit = enum.Enum("ComputeUnit", "ALL CPU_ONLY CPU_AND_GPU CPU_AND_NE")
known = np.load(Path(__file__).with_name("known.npz"))
about = json.loads(Path(__file__).with_name("known.json").read_text())


class MLModel:
    def __init__(self, path, compute_units):
        assert (Path(path) / "Data/com.apple.CoreML/model.mlmodel").is_file(), "the package came as it is"
        assert isinstance(compute_units, ComputeUnit)

    def get_spec(self):
        inputs = [Thing(name=n, type=Thing(multiArrayType=Thing(dataType=d))) for n, d in about["inputs"]]
        return Thing(description=Thing(input=inputs, output=[Thing(name=about["output"])]))

    def predict(self, given):
        for name, _ in about["inputs"]:
            np.testing.assert_array_equal(given[name], known[name])
        return {about["output"]: known[about["output"]]}

    def get_compiled_model_path(self):
        return "compiled"


class NeuralEngine:
    pass


class MLComputePlan:
    model_structure = Thing(program=Thing(functions={"main": Thing(block=Thing(operations=[
        Thing(operator_name="ios17.conv"), Thing(operator_name="const")]))}))

    @classmethod
    def load_from_path(cls, path, compute_units):
        assert path == "compiled"
        return cls()

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        return Thing(weight=1.0) if operation.operator_name != "const" else None

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        return Thing(preferred_compute_device=NeuralEngine()) if operation.operator_name != "const" else None


models = Thing(MLModel=MLModel, compute_plan=Thing(MLComputePlan=MLComputePlan))
"""
ARRAY_TYPES = {"float32": 65568, "float16": 65552, "int32": 131104}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("files")
    net = OneStep(Net()).eval()
    target = Target.parse("coreml-fp16")
    made = build(net, SIGNATURE, name="net", target=target, folder=folder, seed=3, metadata={})
    return folder / made.artifact.file


def mac(package: Path, *, wrong: float = 0.0) -> Shell:
    """A shell of this machine that calls itself a Mac, with the stand-in where its Python finds it."""
    device = Shell(spoil=("uname -sm", "echo Darwin arm64"))
    device.python = sys.executable
    subject, evaluator = read_subject(package), MilEvaluator(package)
    values = dict(zip([tensor.name for tensor in subject.facts.inputs], subject.arrays, strict=True))
    output = evaluator.program.outputs[0].name
    made = evaluator(values)[output]
    about = {"inputs": [(tensor.name, ARRAY_TYPES[tensor.dtype]) for tensor in subject.facts.inputs], "output": output}
    Path(device.place("coremltools.py")).write_text(STAND_IN)
    Path(device.place("known.json")).write_text(json.dumps(about))
    np.savez(device.place("known.npz"), **values, **{output: made + wrong})
    return device


def test_the_worker_speaks_the_protocol_with_a_stand_in_for_core_ml(package: Path, in_process: None) -> None:
    (record,) = profile_files([package], mac(package), per_op=True, options=FEW, progress=Silent()).results
    assert (record.artifact.format, record.numerics.passed) == ("mlpackage", True)
    assert record.numerics.reference is not None
    assert "MIL evaluator" in record.numerics.reference
    assert record.config.runtime is not None
    assert "by coremltools stand-in" in record.config.runtime
    assert record.config.threads_actual is None
    assert record.latency is not None
    assert [(row.kind, row.ms, row.share) for row in record.ops] == [("ios17.conv", None, 1.0)]
    assert [(row.place, row.block) for row in record.leaves] == [("NeuralEngine", None)]
    assert any("operations, estimated by Core ML" in line for line in operations_table(record))


def test_a_stand_in_that_computes_something_else_has_no_latency(package: Path, in_process: None) -> None:
    (record,) = profile_files([package], mac(package, wrong=0.5), options=FEW, progress=Silent()).results
    assert (record.numerics.passed, record.latency) == (False, None)


def test_the_compute_plan_of_a_stand_in_is_written(package: Path, tmp_path: Path) -> None:
    device = mac(package)
    there = device.put(package, package.name)
    subject = read_subject(package)
    inputs = []
    for number, (tensor, array) in enumerate(zip(subject.facts.inputs, subject.arrays, strict=True)):
        array.tofile(tmp_path / str(number))
        inputs.append(f"{'x'.join(map(str, tensor.shape))}:{tmp_path / str(number)}")
    worker = Worker(device, device.runner("mlpackage", there), timeout_s=60).ready()
    worker.ask("open", 1, *inputs)
    worker.ask("trace", 1, tmp_path / "plan")
    worker.stop()
    device.close()
    assert json.loads((tmp_path / "plan").read_text()) == [
        {"kind": "ios17.conv", "device": "NeuralEngine", "cost": 1.0},
        {"kind": "const", "device": None, "cost": None},
    ]


def test_a_package_is_not_measured_where_core_ml_is_not(package: Path) -> None:
    for device in (HostDevice(), Shell()):
        with pytest.raises(DeviceError, match="Core ML runs on Apple's systems only"):
            device.runner("mlpackage", str(package))
        device.close()
    if sys.platform != "darwin":
        with pytest.raises(DeviceError, match=r"measure a .mlpackage on a Mac, or with --device ssh:USER@MAC"):
            connect("")


def test_compute_units_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="macos:gpu: there are all, cpu_only, cpu_and_gpu, cpu_and_ne"):
        connect("gpu")
    monkeypatch.setattr("edgegen.profilers.devices.host.sys.platform", "darwin")
    assert MacDevice("cpu_and_ne").runner("mlpackage", "net.mlpackage").argv[-1] == "CPU_AND_NE"
