"""Relative latency: which float file is built, what is timed, and the budget of latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measured import profile, result
from torch import nn

from edgegen.artifacts import relative_latency
from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.target import Target
from edgegen.errors import DeviceError
from edgegen.profilers.schema import Profile
from edgegen.program.generator import Generator
from edgegen.program.one_step import OneStep
from edgegen.recipe import Quantize
from edgegen.support.children import Children
from edgegen.support.progress import Silent
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)
OWN = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))
"""
TAKES = """
[[inputs]]
name = "sample"
shape = ["batch_size", 1, 8, 8]
role = "noise"
[[outputs]]
name = "out_sample"
shape = ["batch_size", 1, 8, 8]
role = "signal"
"""


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """In place of a clock: a float file takes 2 ms, any other 1. The names of the files of each comparison."""
    comparisons: list[list[str]] = []

    def profile_files(files: Sequence[Path], device: Any, **_: Any) -> Profile:
        comparisons.append([path.name for path in files])
        assert device.name == "host"
        assert all(path.exists() for path in files)
        return profile(*(result(np.full((10, 3), 2.0 if "fp32" in path.name else 1.0)) for path in files))

    monkeypatch.setattr(relative_latency, "profile_files", profile_files)
    return comparisons


def latency_in(folder: Path) -> RelativeLatency:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))
    return RelativeLatency(
        Generator(OneStep(net).eval(), SIGNATURE), folder=folder, children=Children(), seed=3, progress=Silent()
    )


def test_the_float_file_is_built_once_for_a_runtime(tmp_path: Path, timed: list[list[str]], in_process: None) -> None:
    latency = latency_in(tmp_path)
    program, few = latency.generator.folded().program, Quantize(samples=8)
    of_mixed = latency.of_mixed("onnx")
    assert of_mixed(program, few) == 0.5
    built_at = (tmp_path / "float_onnx_fp32.onnx").stat().st_mtime_ns
    assert of_mixed(program, few) == 0.5
    assert (tmp_path / "float_onnx_fp32.onnx").stat().st_mtime_ns == built_at
    assert timed == [["float_onnx_fp32.onnx", "tried_onnx_mixed.onnx"]] * 2


def test_a_file_that_cannot_be_timed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    def profile_files(files: Sequence[Path], device: Any, **_: Any) -> Profile:
        verdict = {"status": "failed", "reasons": ["no answer within 5 s"]}
        return profile(*(result(np.ones((2, 2)), latency=None, verdict=verdict) for _ in files))

    monkeypatch.setattr(relative_latency, "profile_files", profile_files)
    latency = latency_in(tmp_path)
    with pytest.raises(DeviceError, match=r"x\.onnx could not be timed beside its float file: no answer within 5 s"):
        latency.share(tmp_path / "x.onnx", Target("onnx", "w8a8"))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(DeviceError, match="coreml does not run on this machine, so nothing can be timed"):
        latency.share(tmp_path / "x.mlpackage", Target("coreml", "w8a8"))


@pytest.mark.parametrize(("budget", "broken"), [("latency<=0.5", []), ("latency<=0.4", ["latency 0.500 of fp32"])])
def test_a_compressed_file_is_held_to_a_budget_of_latency(
    tmp_path: Path, timed: list[list[str]], in_process: None, budget: str, broken: list[str]
) -> None:
    (tmp_path / "net.py").write_text(OWN)
    (tmp_path / "net.toml").write_text(TAKES)
    settings = ExportSettings(
        (Target("onnx", "w8a8"),),
        quantize=Quantize(samples=8, budget=budget),
        measure=False,
    )
    (exported,) = export_source(
        f"{tmp_path / 'net.py'}:make", tmp_path / "out", settings, signature=tmp_path / "net.toml", progress=Silent()
    )
    (reasons,) = exported.over_budget.values()
    assert [text.split(",")[0] for text in reasons] == broken
    assert [names[0] for names in timed] == ["float_onnx_fp32.onnx"]
