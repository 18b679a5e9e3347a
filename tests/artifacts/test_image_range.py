"""Images in another range than [-1, 1]: what `generate` and `edgegen sample` show of them, against plain NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import raise_failures
from edgegen.artifacts.sample import grid, sample_to_png
from edgegen.artifacts.target import Target
from edgegen.program.capture import reference
from edgegen.program.inputs import example_inputs
from edgegen.support.progress import Silent
from edgegen.types import Signature, TensorSpec
from edgegen.verification.parity import psnr_range

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.classes, self.scale = nn.Conv2d(3, 3, 3, padding=1), nn.Embedding(4, 3), scale

    def forward(self, sample, kind):
        shift = self.classes(kind)[:, :, None, None]
        return self.scale * torch.sigmoid(2 * self.conv(sample) + shift)

def unit():
    return Net(1.0)

def bytes_():
    return Net(255.0)
"""
SIGNATURE = """
[[inputs]]
name = "sample"
role = "noise"
shape = ["batch_size", 3, 8, 8]

[[inputs]]
name = "kind"
role = "class"
dtype = "int64"
shape = ["batch_size"]
low = 0
high = 3

[[outputs]]
name = "picture"
role = "image"
shape = ["batch_size", 3, 8, 8]
low = 0.0
high = {high}
"""


@pytest.mark.parametrize(("factory", "high"), [("unit", 1.0), ("bytes_", 255.0)])
def test_every_way_to_pixels_follows_the_signature(factory: str, high: float, tmp_path: Path, in_process: None) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.toml").write_text(SIGNATURE.format(high=high))
    targets = tuple(map(Target.parse, ("onnx", "onnx:generate", "executorch", "coreml-fp32:generate")))
    settings = ExportSettings(targets, measure=False, samples=2)
    (done,) = export_source(
        f"{tmp_path / 'net.py'}:{factory}",
        tmp_path / "out",
        settings,
        signature=tmp_path / "net.toml",
        progress=Silent(),
    )
    raise_failures([done])
    assert {parity.data_range for file, parity in done.parity.items() if "generate" not in file} == {high}
    inputs = example_inputs(done.signature, 4, 0)
    inputs["kind"] = np.full(4, 2)
    expected = np.rint(reference(done.fold.module, inputs).astype(np.float64) * 255 / high)
    pixels = expected.transpose(0, 2, 3, 1)
    assert 40 < pixels.mean() < 215, "neither black nor white"
    sheet = grid(pixels.astype(np.uint8)).astype(int)
    for file in (row.artifact.file for row in done.built):
        path = tmp_path / f"{file}.png"
        sample_to_png(str(tmp_path / "out" / file), path, count=4, seed=0, label="2", steps=None, runs=tmp_path)
        assert np.abs(np.asarray(Image.open(path)).astype(int) - sheet).max() <= 1, file


@pytest.mark.parametrize(
    ("low", "high", "values", "expected"),
    [
        (-1.0, 1.0, [-1.5, 1.0], 2.0),
        (0.0, 1.0, [0.0, 1.2], 1.0),
        (0.0, 255.0, [3.0, 9.0], 255.0),
        (0.0, 1.0, [-40.0, 60.0], 100.0),  # of random weights
        (None, None, [0.0, 0.5], 0.5),
        (None, None, [3.0, 3.0], 1.0),
    ],
)
def test_psnr_is_relative_to_the_range_of_the_output(low: Any, high: Any, values: list[float], expected: float) -> None:
    shape = ("batch_size", 1, 1, 2)
    specs = (TensorSpec("sample", shape, "float32", "noise"),)
    signature = Signature(specs, (TensorSpec("out_sample", shape, "float32", "image", low, high),))
    assert psnr_range(signature, np.array(values)) == expected
