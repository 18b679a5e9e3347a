"""Programs that Core ML has no form for as they are: an output that is an input, and volumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgegen.errors import ExportError
from edgegen.exporters.coreml.backend import BACKEND
from edgegen.program.capture import capture
from edgegen.program.inputs import example_inputs
from edgegen.types import Signature

pytest.importorskip("coremltools")
SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)


def lower(net: nn.Module, path: Path) -> Path:
    program = capture(net.eval(), SIGNATURE, batch=1)
    before = str(program.graph)
    BACKEND.lower(program, path, signature=SIGNATURE, precision="fp32", metadata={})
    assert str(program.graph) == before
    return path


def test_a_network_that_gives_its_input(tmp_path: Path) -> None:
    path = lower(nn.Identity(), tmp_path / "same.mlpackage")
    inputs = example_inputs(SIGNATURE, 2, 0)
    np.testing.assert_array_equal(BACKEND.open(path)(inputs)["out_sample"], inputs["sample"])


class Volume(nn.Module):
    def forward(self, sample: Tensor) -> Tensor:
        volume = sample[:, :, None].expand(-1, -1, 4, -1, -1)
        grid = torch.zeros(sample.shape[0], 4, 8, 8, 3) + sample.mean()
        return F.grid_sample(volume, grid, align_corners=False).mean(2)


def test_a_volume_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"Core ML resamples images, and no volumes: .* the runtime onnx with opset = 20"
    ):
        lower(Volume(), tmp_path / "volume.mlpackage")
