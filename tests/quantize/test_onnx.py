"""onnx: float16 under masks of float32's least number, and nothing else changed."""

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgegen.exporters.onnx.backend import BACKEND
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.quantize.onnx import to_fp16
from edgegen.types import Signature, TensorSpec
from edgegen.verification.parity import psnr_db

LEAST = torch.finfo(torch.float32).min
SIGNATURE = Signature(
    (
        TensorSpec("sample", ("batch_size", 8, 16), "float32", "noise"),
        TensorSpec("kept", ("batch_size", 8), "int64", "features", 0, 1),
    ),
    (TensorSpec("out_sample", ("batch_size", 8, 16), "float32", "signal"),),
    0,
)


class Attention(nn.Module):
    """Over the tokens before, of those that are kept: two masks, as transformers' eager code adds them up."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.register_buffer("causal", torch.full((8, 8), LEAST).triu(1)[None])
        self.causal: Tensor

    def forward(self, sample: Tensor, kept: Tensor) -> Tensor:
        hidden = (1.0 - kept.float())[:, None, :] * LEAST
        scores = self.query(sample) @ self.key(sample).transpose(1, 2) / 4
        masked = scores + torch.maximum(self.causal + hidden, torch.tensor(LEAST))
        out: Tensor = masked.softmax(-1) @ self.value(sample)
        return out


def test_masked_attention_is_as_true_as_any_in_float16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Attention().eval()
    program = capture(net, SIGNATURE, batch=None)
    BACKEND.lower(program, tmp_path / "a.onnx", signature=SIGNATURE, precision="fp32", metadata={})
    to_fp16(tmp_path / "a.onnx", tmp_path / "half.onnx")
    inputs = example_inputs(SIGNATURE, 6, 0)
    inputs["kept"] = np.random.default_rng(0).integers(0, 2, inputs["kept"].shape)
    inputs["kept"][0] = 0  # a prompt of nothing but padding
    expected = reference(net, inputs)
    out = BACKEND.open(tmp_path / "half.onnx")(inputs)["out_sample"]
    assert psnr_db(expected, out, data_range=float(np.ptp(expected))) > 60.0
    kinds = {node.op_type for node in onnx.load(tmp_path / "half.onnx").graph.node}
    assert {"MatMul", "Softmax", "Cast"} <= kinds
    matrices = [t for t in onnx.load(tmp_path / "half.onnx").graph.initializer if list(t.dims) == [16, 16]]
    assert {t.data_type for t in matrices} == {onnx.TensorProto.FLOAT16}
