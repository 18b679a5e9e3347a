"""Files in a child process: the same numbers as here, and a death or too much memory that fails one file alone."""

from collections.abc import Iterator
from pathlib import Path

import deadly_package
import numpy as np
import pytest
import torch
from small_nets import Net
from torch import nn

from edgegen import registry
from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError, NoRuntimeError
from edgegen.program.generator import Generator
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.recipe import Quantize
from edgegen.support.service import Service
from edgegen.types import Parity, Signature
from edgegen.verification.session_process import SessionProcess
from edgegen.verification.verify import Verifier

INPUTS = deadly_package.inputs()


@pytest.fixture(autouse=True)
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deadly_package.install(tmp_path, monkeypatch)


@pytest.fixture
def process() -> Iterator[SessionProcess]:
    process = SessionProcess(threads=1)
    yield process
    process.close()


@pytest.mark.long
def test_every_runtime_gives_the_numbers_that_it_gives_here(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, process: SessionProcess
) -> None:
    """One child for all; classes are whole numbers; `generate` is a second method of the .pte."""
    torch.manual_seed(0)
    signature = Signature.of(channels=1, size=8, num_classes=10)
    options = {"folder": tmp_path, "name": "net", "seed": 0, "metadata": {}, "quantization": Quantize(samples=1)}
    artifacts = [
        build(OneStep(Net()).eval(), signature, target=Target.parse(target), **options).artifact
        for target in ("onnx-w8a8", "executorch-w8a8", "coreml")
    ]
    monkeypatch.setattr("edgegen.verification.session_process.Service", Service)
    arrays = example_inputs(signature, 3, 7)
    children = set()
    for artifact in artifacts:
        here = registry.load("backend", artifact.backend).open(tmp_path / artifact.file)
        there = process.open(artifact.backend, tmp_path / artifact.file)
        children.add(process.start().process.pid)
        assert there.method == here.method
        expected, actual = here(arrays), there(arrays)
        assert list(actual) == list(expected)
        assert all(np.array_equal(actual[name], expected[name]) for name in expected)
        if artifact.backend == "executorch":
            mine, other = here.further["generate"], there.further["generate"]
            assert other.method == mine.method
            assert np.array_equal(other(arrays)["out_image"], mine(arrays)["out_image"])
        else:
            assert not there.further
    assert process.arithmetic("onnx", tmp_path / artifacts[0].file) == "all 2 layers multiply in 8 bits"
    assert len(children) == 1
    assert not list(process.start().folder.glob("*.npy"))


def test_a_death_is_an_export_error_and_the_next_file_gets_a_new_child(tmp_path: Path, process: SessionProcess) -> None:
    with pytest.raises(ExportError, match=r"that opened abort\.deadly ended by SIGABRT: opening on stdout / terminate"):
        process.open("deadly", deadly_package.write(tmp_path, "abort")[1])
    session = process.open("deadly", deadly_package.write(tmp_path, "abort in a run")[1])
    assert session.method == "deadly 1.0"
    with pytest.raises(ExportError, match=r"the process that ran abort_in_a_run\.deadly ended by SIGABRT"):
        session(INPUTS)
    with pytest.raises(ExportError, match=r"abort_in_a_run\.deadly is not open any more"):
        session(INPUTS)
    whole = process.open("deadly", deadly_package.write(tmp_path, "whole")[1])
    assert np.allclose(whole(INPUTS)["out_sample"], np.tanh(INPUTS["sample"]))


def test_errors_of_a_backend_keep_their_class_and_the_child_lives_on(tmp_path: Path, process: SessionProcess) -> None:
    whole, absent, odd = (deadly_package.write(tmp_path, deed)[1] for deed in ("whole", "no runtime", "odd"))
    process.open("deadly", whole)
    child = process.start().process.pid
    with pytest.raises(NoRuntimeError, match=r"no such delegate here"):
        process.open("deadly", absent)
    with pytest.raises(ExportError, match=r"^of a class of its own$"):
        process.open("deadly", odd)
    assert process.start().process.pid == child


def test_too_much_memory_is_an_export_error_with_both_sizes(tmp_path: Path) -> None:
    process = SessionProcess(memory_limit=400_000_000)
    with pytest.raises(
        ExportError, match=r"that opened hoard\.deadly held 0\.4\d GB of memory, 0\.40 GB are allowed: stopped"
    ):
        process.open("deadly", deadly_package.write(tmp_path, "hoard")[1])


class Tanh(nn.Module):
    """With a parameter, because a network without one is not captured."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.scale * sample)


def test_the_verifier_fails_a_file_that_kills_and_goes_on(tmp_path: Path) -> None:
    def parity(deed: str) -> Parity:
        return verifier(*deadly_package.write(tmp_path, deed))[0]

    with Verifier(Generator(Tanh(), deadly_package.SIGNATURE), samples=2, seed=0) as verifier:
        first = parity("abort")
        assert first.status == "failed"
        assert first.reason.startswith("the process that opened abort.deadly ended by SIGABRT: ")
        assert parity("whole").status == "ok"
        second = parity("abort in a run")
        assert second.status == "failed"
        assert second.reason.startswith("the process that ran abort_in_a_run.deadly ended by SIGABRT")
        assert "opening" not in second.reason, "that was printed in another call"
        assert second.method == "deadly 1.0"
        absent = parity("no runtime")
        assert (absent.status, absent.reason) == ("not checked", "no_runtime.deadly: no such delegate here")
        service = verifier.process.start()
    assert not service.alive
