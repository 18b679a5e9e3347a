"""The runtimes' profiles, summed by kind: held against the graph that onnxruntime writes, and the .pte's own layers."""

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from measured import needs_compiler
from torch import nn

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.files.profile import per_operation
from edgegen.program.one_step import OneStep
from edgegen.recipe import Quantize
from edgegen.types import Signature


def made(target: str, folder: Path) -> Path:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3, padding=1))
    signature, wanted, few = Signature.of(channels=1, size=8, num_classes=0), Target.parse(target), Quantize(samples=16)
    net = OneStep(layers).eval()
    build(net, signature, name="t", target=wanted, folder=folder, seed=3, metadata={}, quantization=few)
    return folder / wanted.file("t")


def test_every_node_that_onnxruntime_runs_is_counted_once(tmp_path: Path, in_process: None) -> None:
    path = made("onnx-fp32", tmp_path)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    times = per_operation(path, DEVICE, runs=3)
    assert {time.kind: time.count for time in times} == dict(run)
    assert [time.ms for time in times] == sorted((time.ms for time in times), reverse=True)
    assert all(time.ms > 0 for time in times)


@needs_compiler
def test_what_is_inside_a_delegate_is_counted_and_the_delegate_is_not(tmp_path: Path, in_process: None) -> None:
    times = {time.kind: time for time in per_operation(made("executorch-w8a8", tmp_path), DEVICE, runs=3)}
    whole = sum(time.count for kind, time in times.items() if "QC8" in kind)
    assert whole == 2
    assert not {"DELEGATE_CALL", "OPERATOR_CALL", "Method::execute"} & set(times)


def test_a_file_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x09")
    with pytest.raises(ExportError):
        per_operation(tmp_path / "cut.onnx", DEVICE)
