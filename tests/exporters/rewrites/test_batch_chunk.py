"""batch_chunk: guidance in one batch of twice the size is written to ONNX, and computes what PyTorch computes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from edgegen.exporters.onnx.backend import BACKEND
from edgegen.exporters.rewrites import apply
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)


class Guided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, sample: Tensor) -> Tensor:
        first, second = self.conv(torch.cat([sample, -sample])).chunk(2)
        left, right = (first + 3 * (second - first)).chunk(2, dim=1)
        return torch.cat([left * right, left], 1)[:, :3]


def test_a_doubled_batch_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Guided().eval()
    graph = capture(net, SIGNATURE, batch=None).module(check_guards=False)
    program = apply(graph, BACKEND.rewrites, signature=SIGNATURE, batch=None)
    chunks = [node for node in program.graph.nodes if node.target == torch.ops.aten.chunk.default]
    assert len(chunks) == 1, "the channels are split by the operator, as before"
    BACKEND.lower(program, tmp_path / "a.onnx", signature=SIGNATURE, precision="fp32", metadata={})
    session = BACKEND.open(tmp_path / "a.onnx")
    for batch in (1, 3):
        inputs = example_inputs(SIGNATURE, batch, 0)
        out = torch.from_numpy(session(inputs)["out_sample"])
        torch.testing.assert_close(out, torch.from_numpy(reference(net, inputs)), rtol=1e-5, atol=1e-6)
