"""memory_layout: whatever strides PyTorch takes, the file runs, and its picture leaves it as the signature says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgegen.errors import ExportError
from edgegen.exporters.executorch import backend
from edgegen.exporters.executorch.backend import BACKEND
from edgegen.exporters.rewrites import apply
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.support.pixels import to_uint8
from edgegen.support.vendor_logs import EXECUTORCH, quiet
from edgegen.types import PIXELS, Signature

SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)


class Tokens(nn.Module):
    """A picture made of tokens: transposed, the channels are the axis that runs fastest."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(12, 12)

    def forward(self, sample: Tensor) -> Tensor:
        tokens = self.dense(sample.reshape(-1, 16, 12))
        return torch.tanh(F.pixel_shuffle(tokens.transpose(1, 2).reshape(-1, 12, 4, 4), 2))


class TokenAttention(Tokens):
    """Attention between patches, an RMSNorm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(12, 2, batch_first=True), nn.RMSNorm(12)

    def forward(self, sample: Tensor) -> Tensor:
        tokens = F.pixel_unshuffle(sample, 2).flatten(2).transpose(1, 2)
        tokens = self.dense(self.norm(tokens + self.attention(tokens, tokens, tokens)[0]))
        return torch.tanh(F.pixel_shuffle(tokens.transpose(1, 2).reshape(-1, 12, 4, 4), 2))


class ChannelsLast(nn.Module):
    """As many networks are made faster on a GPU: weights and tensors in another layout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.scale = nn.Parameter(torch.randn(1, 6, 8, 8).contiguous(memory_format=torch.channels_last))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, sample: Tensor) -> Tensor:
        x = sample.contiguous(memory_format=torch.channels_last)
        x = torch.fft.fftshift(torch.relu(self.first(x)) * self.scale, (2, 3))
        return torch.tanh(self.last(x))


def files(net: nn.Module, path: Path) -> None:
    graph = capture(net, SIGNATURE, batch=1).module(check_guards=False)
    program = apply(graph, BACKEND.rewrites, signature=SIGNATURE, batch=1)
    BACKEND.lower(program, path, signature=SIGNATURE, precision="fp32", metadata={})


@pytest.mark.parametrize("make", [Tokens, TokenAttention, ChannelsLast])
def test_the_picture_leaves_the_file_as_the_signature_says(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = make().eval()
    files(net, tmp_path / "a.pte")
    session = BACKEND.open(tmp_path / "a.pte")
    inputs = example_inputs(SIGNATURE, 1, 0)
    (out,) = session.execute([torch.from_numpy(inputs["sample"])])
    expected = reference(net, inputs)
    assert out.stride() == (192, 64, 8, 1)
    torch.testing.assert_close(out, torch.from_numpy(expected).contiguous(), rtol=1e-5, atol=1e-6)
    pixels = session.further["generate"](inputs)[PIXELS]
    assert abs(pixels.astype(int) - to_uint8(expected).astype(int)).max() <= 1


def test_a_file_of_another_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet(EXECUTORCH):
        from executorch.exir.pass_base import ExportPass

    monkeypatch.setattr(backend, "contiguous_layout", ExportPass)
    torch.manual_seed(0)
    files(Tokens().eval(), tmp_path / "a.pte")
    with pytest.raises(ExportError, match=r"'out_sample' \[1, 3, 8, 8\] leaves the file in another layout.*192, 1, 24"):
        BACKEND.open(tmp_path / "a.pte")(example_inputs(SIGNATURE, 1, 0))
