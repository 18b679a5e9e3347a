"""base: what a message says where the vendor's own names no cause."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import ExportError
from edgegen.exporters.base import refusal
from edgegen.exporters.executorch.backend import BACKEND as EXECUTORCH
from edgegen.exporters.onnx.backend import BACKEND as ONNX
from edgegen.program.capture import capture
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)


def chain(*messages: str) -> Exception:
    """An exception whose causes have the other messages."""
    error: Exception | None = None
    for message in reversed(messages):
        outer = RuntimeError(message)
        outer.__cause__, error = error, outer
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["plain\nmore"], "could not lower the program: plain"),
        (["plain", "its cause"], "could not lower the program: plain"),
        (
            [
                "An error occurred when running the '<a.b.Fold object at 0x1>' pass after the following passes: []",
                "x = 3",
            ],
            "could not lower the program (its Fold): RuntimeError: x = 3",
        ),
        (
            [
                "Failed. \x1b[96mThis is step 3/3\x1b[0m of it. Next steps:",
                "translating node %n : aten.mul.Tensor",
                "no x",
            ],
            "could not lower the program at aten.mul.Tensor: RuntimeError: no x",
        ),
        (["aten::x", "No decompositions registered for aten.svd.default"], "could not lower the program: aten::x"),
        (["No decompositions registered for aten.svd.default"], "has no form of aten.svd.default: write"),
    ],
)
def test_the_innermost_cause_is_told_where_the_outermost_is_none(messages: list[str], reason: str) -> None:
    assert refusal("The tool", chain(*messages)).startswith(f"The tool {reason}")


class KernelOfEachSample(nn.Module):
    """A convolution of as many groups as there are samples, which ONNX cannot say."""

    def __init__(self) -> None:
        super().__init__()
        self.styled = Styled()

    def forward(self, sample: Tensor) -> Tensor:
        out: Tensor = self.styled(sample)
        return out


class Styled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        kernels = (self.weight[None] * x.mean((2, 3)).view(batch, 1, 3, 1, 1)).view(batch * 3, 3, 3, 3)
        out = nn.functional.conv2d(x.reshape(1, batch * 3, 8, 8), kernels, padding=1, groups=batch)
        return out.view(batch, 3, 8, 8)


def test_the_operator_and_its_module_are_named(tmp_path: Path) -> None:
    program = capture(KernelOfEachSample().eval(), SIGNATURE, batch=None)
    with pytest.raises(ExportError, match=r"at aten.conv2d.default of styled: TypeError: Unsupported attribute type"):
        ONNX.lower(program, tmp_path / "a.onnx", signature=SIGNATURE, precision="fp32", metadata={})


def test_the_pass_is_named(tmp_path: Path) -> None:
    up = nn.ConvTranspose2d(6, 6, 2, 2, groups=2)
    net = nn.Sequential(nn.Conv2d(3, 6, 2, 2), up, nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1)).eval()
    program = capture(net, SIGNATURE, batch=1)
    with pytest.raises(ExportError, match=r"\(its FuseBatchNormPass\): RuntimeError: The size of tensor a \(3\) must"):
        EXECUTORCH.lower(program, tmp_path / "a.pte", signature=SIGNATURE, precision="fp32", metadata={})
