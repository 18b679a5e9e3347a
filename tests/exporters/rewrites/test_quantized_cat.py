"""quantized_cat: parts on the grid of the concatenation, the same numbers; ExecuTorch loads what it refused before."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.nn import functional as F

from edgegen.exporters.executorch.backend import BACKEND
from edgegen.exporters.rewrites import apply, quantized_cat
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import InputSource, example_inputs
from edgegen.quantize.calibration import calibration_batches
from edgegen.quantize.pt2e import quantize
from edgegen.quantize.schemes import DEFAULT_OPTIONS
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db

OPS = torch.ops.quantized_decomposed
SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)


def grid(x: Tensor, scale: float) -> Tensor:
    codes = OPS.quantize_per_tensor(x, scale, 3, -128, 127, torch.int8)
    values: Tensor = OPS.dequantize_per_tensor(codes, scale, 3, -128, 127, torch.int8)
    return values


class Joined(nn.Module):
    """A part that is read twice, one that is on the grid already; behind them a reading without a rounding if `two`."""

    def __init__(self, *, two: bool = False) -> None:
        super().__init__()
        self.two = two

    def forward(self, x: Tensor) -> Tensor:
        first = grid(x, 0.05)
        joined = torch.cat([first, grid(x * 2, 0.1)], 1)
        return grid(joined, 0.1).sum(1) + first.sum(1) + (joined.sum(1) if self.two else 0.0)


class Padded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(grid(x, 0.1), (1, 2, 1, 0)).sum(1) + F.pad(grid(x, 0.1), (1, 2, 1, 0), value=1.0).sum(1)


@pytest.mark.parametrize(("module", "more"), [(Joined(), 1), (Joined(two=True), 0), (Padded(), 1)])
def test_not_one_number_changes(module: nn.Module, more: int) -> None:
    x = 8 * torch.randn(2, 3, 4, 5)
    graph_module = torch.export.export(module, (x,)).module()
    before = roundings(graph_module)
    quantized_cat.rewrite(graph_module)
    assert roundings(graph_module) == before + more
    assert torch.equal(graph_module(x), module(x))


def test_a_part_that_nothing_else_reads_is_rounded_once() -> None:
    class Alone(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return grid(torch.cat([grid(x, 0.03), grid(2 * x, 0.1)], 1), 0.1)

    x = 8 * torch.randn(2, 3, 4, 5)
    graph_module = torch.export.export(Alone(), (x,)).module()
    before = roundings(graph_module)
    quantized_cat.rewrite(graph_module)
    assert roundings(graph_module) == before
    assert torch.equal(graph_module(x), grid(torch.cat([x, 2 * x], 1), 0.1))


def roundings(module: nn.Module) -> int:
    return sum(node.target == OPS.quantize_per_tensor.default for node in module.graph.nodes)


class DenseBlock(nn.Module):
    """A residual dense block; `layers` large enough for more parts than XNNPACK takes at once."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.dense = nn.ModuleList(nn.Conv2d(8 + 4 * index, 4, 3, padding=1) for index in range(layers))
        self.fuse = nn.Conv2d(8 + 4 * layers, 8, 1)

    def forward(self, sample: Tensor) -> Tensor:
        parts = [self.stem(sample)]
        for layer in self.dense:
            parts.append(F.relu(layer(torch.cat(parts, 1) if len(parts) > 1 else parts[0])))
        out: Tensor = self.head(parts[0] + self.fuse(torch.cat(parts, 1)))
        return out


class PlainUNet(nn.Module):
    """A U-Net without norms, padded by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, sample: Tensor) -> Tensor:
        skip = F.relu(self.stem(F.pad(sample, (1, 1, 1, 1))))
        small = F.relu(self.down(F.avg_pool2d(F.pad(skip, (1, 1, 1, 1)), 3, 1)))
        up = F.relu(self.up(F.interpolate(small, scale_factor=2.0)))
        out: Tensor = self.head(torch.cat([up, skip], 1))
        return out


def trained_like(net: nn.Module) -> nn.Module:
    """Layers whose outputs differ in size, as those of trained networks do."""
    with torch.no_grad():
        for number, layer in enumerate(module for module in net.modules() if isinstance(module, nn.Conv2d)):
            layer.weight *= (0.5, 4.0, 1.5)[number % 3]
    return net.eval()


@pytest.mark.long
@pytest.mark.parametrize("net", [DenseBlock(2), DenseBlock(6), PlainUNet()], ids=["dense", "many parts", "unet"])
def test_networks_that_concatenate_8_bit_numbers(net: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = trained_like(net)
    batches = calibration_batches(InputSource(SIGNATURE, 0), samples=32, batch=8)
    quantized = quantize(capture(net, SIGNATURE, batch=None), "w8a8", batches, DEFAULT_OPTIONS)
    inputs = example_inputs(SIGNATURE, 8, 7)
    expected, simulated = reference(net, inputs), reference(quantized, inputs)
    data_range = float(np.ptp(expected))
    program = apply(quantized, BACKEND.rewrites, signature=SIGNATURE, batch=1)
    BACKEND.lower(program, tmp_path / "a.pte", signature=SIGNATURE, precision="fp32", metadata={})
    out = BACKEND.open(tmp_path / "a.pte")(inputs)["out_sample"]
    assert psnr_db(expected, out, data_range=data_range) > 35.0
    # The file may round less often, never more: XNNPACK's own sums differ from PyTorch's by a step here and there.
    exact = psnr_db(expected, simulated, data_range=data_range)
    assert psnr_db(expected, out, data_range=data_range) > exact - 1.5
