"""ONNX files have the opset that was asked for, or none is written."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgegen.errors import ExportError
from edgegen.exporters.onnx.backend import BACKEND
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.recipe import Export
from edgegen.types import Signature

pytest.importorskip("onnxruntime")
SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)


class Warp(nn.Module):
    """A volume (channels, depth, height, width), or the picture, moved by a flow."""

    def __init__(self, *, volume: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.volume, axes = volume, 3 if volume else 2
        self.lift, self.flow = nn.Conv2d(3, 3 * 4, 1), nn.Conv2d(3, axes * (4 if volume else 1), 1)

    def forward(self, sample: Tensor) -> Tensor:
        flow = torch.tanh(self.flow(sample))
        if not self.volume:
            return F.grid_sample(sample, flow.permute(0, 2, 3, 1), align_corners=False)
        volume, moves = self.lift(sample).unflatten(1, (3, 4)), flow.unflatten(1, (3, 4)).permute(0, 2, 3, 4, 1)
        return F.grid_sample(volume, moves, align_corners=False).mean(2)


def lower(net: nn.Module, path: Path, opset: int) -> None:
    program = capture(net.eval(), SIGNATURE, batch=None)
    options = Export(opset=opset)
    BACKEND.lower(program, path, signature=SIGNATURE, precision="fp32", metadata={}, options=options)


def test_volumes_need_opset_20(tmp_path: Path) -> None:
    net = Warp(volume=True)
    with pytest.raises(
        ExportError, match=r"grid_sample of volumes \(5D\) needs ONNX opset 20, .* have 18: set opset = 20"
    ):
        lower(net, tmp_path / "net.onnx", 18)
    assert not (tmp_path / "net.onnx").exists()
    for volume, opset in ((True, 20), (False, 18)):
        net, path = Warp(volume=volume), tmp_path / f"{opset}.onnx"
        lower(net, path, opset)
        assert [(entry.domain, entry.version) for entry in onnx.load(path).opset_import] == [("", opset)]
        inputs = example_inputs(SIGNATURE, 2, 0)
        np.testing.assert_allclose(BACKEND.open(path)(inputs)["out_sample"], reference(net, inputs), atol=1e-5)


def test_a_newer_opset_than_asked_for_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def newer(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(model=SimpleNamespace(opset_imports={"": 21}))

    monkeypatch.setattr(torch.onnx, "export", newer)
    with pytest.raises(
        ExportError, match="an operator of this network needs ONNX opset 21, and the file is to have 18"
    ):
        lower(Warp(volume=False), tmp_path / "net.onnx", 18)
