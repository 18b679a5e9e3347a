"""transposed_conv: a transposed convolution is a convolution and a shuffle of pixels, and rounds in every runtime."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.exporters.rewrites import transposed_conv
from edgegen.inspection.integer_kernels import arithmetic
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs
from edgegen.registry import load
from edgegen.types import Signature, TensorSpec
from edgegen.verification.parity import psnr_db

ATEN = torch.ops.aten
TRANSPOSED = (ATEN.conv_transpose1d.default, ATEN.conv_transpose2d.input)
# kernel, stride, padding, output padding of one axis
AXES = [(4, 2, 1, 0), (3, 2, 1, 1), (4, 1, 0, 0), (2, 2, 0, 0), (5, 3, 2, 2), (1, 2, 0, 1), (3, 3, 3, 2), (6, 2, 5, 0)]


def rewritten(layer: nn.Module, x: Tensor) -> Tensor:
    graph = torch.export.export(layer, (x,)).module()
    transposed_conv.rewrite(graph)
    assert not any(node.target in TRANSPOSED for node in graph.graph.nodes)
    out: Tensor = graph(x)
    return out


@pytest.mark.parametrize(("groups", "bias"), [(1, True), (2, False), (4, True)])
def test_it_is_the_same_image(groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    for kernel, stride, padding, more in AXES:
        layer = nn.ConvTranspose2d(4, 8, kernel, stride, padding, more, groups, bias).double().eval()
        x = torch.randn(2, 4, 5, 4, dtype=torch.float64)
        torch.testing.assert_close(rewritten(layer, x), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("numbers", AXES)
def test_it_is_the_same_signal(numbers: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(4, 6, *numbers, groups=2).double().eval()
    x = torch.randn(2, 4, 7, dtype=torch.float64)
    torch.testing.assert_close(rewritten(layer, x), layer(x), rtol=1e-12, atol=1e-12)


def test_axes_of_other_kernels() -> None:
    for rows, columns in product(AXES[:2], AXES[:2]):
        kernel, _, padding, more = zip(rows, columns, strict=True)
        layer = nn.ConvTranspose2d(4, 2, kernel, 2, padding, more).double().eval()
        x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
        torch.testing.assert_close(rewritten(layer, x), layer(x), rtol=1e-12, atol=1e-12)


def test_what_stays() -> None:
    for layer in (nn.ConvTranspose2d(4, 2, 3, (1, 2)), nn.ConvTranspose2d(4, 2, 3, 2, dilation=2)):
        graph = torch.export.export(layer.eval(), (torch.randn(1, 4, 3, 5),)).module()
        transposed_conv.rewrite(graph)
        assert any(node.target in TRANSPOSED for node in graph.graph.nodes)


class Generator(nn.Module):
    """BatchNorm behind a grouped and a depthwise transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.ConvTranspose2d(8, 12, 3, 2, 1, 1, groups=4, bias=False), nn.BatchNorm2d(12)
        self.deep = nn.ConvTranspose2d(12, 12, 4, 2, 1, groups=12)
        self.head = nn.Conv2d(12, 3, 3, padding=1)
        for values, low, high in ((self.norm.running_mean, -0.5, 0.5), (self.norm.running_var, 0.3, 2.0)):
            nn.init.uniform_(values, low, high)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.head(torch.relu(self.deep(torch.relu(self.norm(self.up(z)))))))


@pytest.mark.parametrize("target", ["executorch-w8a8", "onnx-w8a8", "onnx", "executorch", "coreml-fp32"])
def test_a_generator_of_them_runs_true(tmp_path: Path, in_process: None, target: str) -> None:
    torch.manual_seed(0)
    net, chosen = Generator().eval(), Target.parse(target)
    signature = Signature(
        (TensorSpec("z", ("batch_size", 8, 4, 4), "float32", "noise"),),
        (TensorSpec("picture", ("batch_size", 3, 16, 16), "float32", "image", -1.0, 1.0),),
    )
    folded = fold(net, signature).module
    artifact = build(folded, signature, name="net", target=chosen, folder=tmp_path, seed=0, metadata={}).artifact
    inputs = example_inputs(signature, 3, 0)
    out = load("backend", chosen.backend).open(tmp_path / artifact.file)(inputs)["picture"]
    floor_db = 40.0 if chosen.scheme == "w8a8" else 120.0
    assert psnr_db(reference(net, inputs), np.asarray(out)) > floor_db
    assert "left_out" not in artifact.details
    if chosen.scheme == "w8a8":
        assert arithmetic(chosen.backend, tmp_path / artifact.file) == "all 3 layers multiply in 8 bits"
