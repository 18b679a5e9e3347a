"""executorch: every cell on every tiny generator, run by ExecuTorch's own runtime; metadata, traces, the same bytes."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from edgegen.errors import ExportError, MissingExtraError
from edgegen.exporters.executorch.backend import BACKEND
from edgegen.program.capture import capture
from edgegen.program.one_step import OneStep
from edgegen.types import Signature

if TYPE_CHECKING:
    from tests.exporters.conftest import Tiny


def small() -> tuple[OneStep, Signature]:
    """A convolution where a net would be: it lowers in a second."""
    torch.manual_seed(0)
    return OneStep(torch.nn.Conv2d(1, 1, 3, padding=1)), Signature.of(channels=1, size=8, num_classes=0)


def lower(path: Path) -> Path:
    module, signature = small()
    program = capture(module, signature, batch=1)
    BACKEND.lower(program, path, signature=signature, precision="fp32", metadata={"seed": "7"})
    return path


def test_the_metadata_names_the_inputs_in_order(tmp_path: Path) -> None:
    session = BACKEND.open(lower(tmp_path / "a.pte"))
    described = session.described
    assert (described["inputs"], described["outputs"], described["seed"]) == (["sample"], ["out_sample"], "7")
    assert described["signature"] == json.loads(json.dumps(small()[1].to_dict()))


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    assert lower(tmp_path / "a.pte").read_bytes() == lower(tmp_path / "b.pte").read_bytes()


def test_what_the_runtime_refuses_is_an_export_error(tmp_path: Path, tiny: "Tiny") -> None:
    session = BACKEND.open(lower(tmp_path / "a.pte"))
    with pytest.raises(ExportError, match=r"missing inputs \['sample'\]; the program takes \['sample'\]"):
        session({})
    with pytest.raises(ExportError, match=r"ExecuTorch refused sample float64\[1, 1, 8, 8\]"):
        session({"sample": tiny.inputs["sample"].astype("float64")})
    (tmp_path / "broken.pte").write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"ExecuTorch cannot open .*broken.pte: .*size_ 7"):
        BACKEND.open(tmp_path / "broken.pte")


def test_what_cannot_be_lowered_is_an_export_error(tmp_path: Path) -> None:
    _, signature = small()
    with pytest.raises(ExportError, match="ExecuTorch could not lower the program"):
        BACKEND.lower("no program", tmp_path / "a.pte", signature=signature, precision="fp32", metadata={})  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="the executorch backend writes fp32, not fp16"):
        BACKEND.lower("no program", tmp_path / "a.pte", signature=signature, precision="fp16", metadata={})  # type: ignore[arg-type]


def test_without_the_extra_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(
        MissingExtraError, match=r"running an ExecuTorch file needs 'executorch'.*edgegen\[executorch\]"
    ):
        BACKEND.open(tmp_path / "a.pte")
