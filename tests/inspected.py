"""A net with all that `inspect` tells apart, its files by the vendors' plain tools, its multiplications by torch."""

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils.flop_counter import FlopCounterMode

from edgegen.formats import mlpackage
from edgegen.support.vendor_logs import EXECUTORCH, EXPORT, TORCH_ONNX, quiet

SIZE, WIDTH = 8, 16
ATTENTION = 2 * SIZE**4 * WIDTH  # query x key and weights x value, over SIZE x SIZE tokens


class Net(nn.Module):
    """Convolution, group norm, attention as torch writes it, nearest upsampling, a grouped and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.norm = nn.GroupNorm(4, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.grouped = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=4)
        self.deep = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.grow = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)

    def forward(self, sample: Tensor) -> Tensor:
        h = F.silu(self.norm(self.first(sample)))
        q, k, v = (part[:, None] for part in self.qkv(h.flatten(2).transpose(1, 2)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0]
        h = h + self.out(mixed).transpose(1, 2).reshape(h.shape)
        h = F.interpolate(self.deep(self.grouped(h)), scale_factor=2.0, mode="nearest")
        grown: Tensor = self.grow(h)
        return grown


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def example() -> Tensor:
    return torch.zeros(1, 3, SIZE, SIZE)


def macs(module: nn.Module) -> int:
    """By weights, as torch counts them (two for a multiplication with its addition; no attention on the CPU)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example())
    return int(counter.get_total_flops()) // 2


def program() -> ExportedProgram:
    with torch.no_grad(), quiet(EXPORT):
        return torch.export.export(net(), (example(),))


def write_onnx(path: Path, *, opset: int = 18) -> Path:
    batch = {0: torch.export.Dim("batch_size", min=1)}
    with torch.no_grad(), quiet(TORCH_ONNX):
        two = torch.zeros(2, 3, SIZE, SIZE)
        exported = torch.export.export(net(), (two,), dynamic_shapes=(batch,))
        made = torch.onnx.export(exported, dynamo=True, opset_version=opset, external_data=False, verbose=False)
    assert made is not None
    path.write_bytes(made.model_proto.SerializeToString())
    return path


def lower(*, delegate: bool) -> Any:
    """ExecuTorch's edge program of the net, by its own calls; without `delegate` nothing is partitioned."""
    with quiet(EXECUTORCH), warnings.catch_warnings(action="ignore"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        return to_edge_transform_and_lower(program(), partitioner=[XnnpackPartitioner()] if delegate else None)


def content(edge: Any) -> bytes:
    """The `.pte` of an edge program."""
    with quiet(EXECUTORCH), warnings.catch_warnings(action="ignore"):
        return bytes(edge.to_executorch().buffer)


def package(path: Path, *, target: str = "iOS17", precision: str = "FLOAT16") -> Path:
    """The net as a Core ML package, by coremltools' own call."""
    vendor = mlpackage.coremltools("a test")
    with mlpackage.silent(), warnings.catch_warnings(action="ignore"):
        model = vendor.convert(
            program().run_decompositions({}),
            minimum_deployment_target=vendor.target[target],
            compute_precision=vendor.precision[precision],
            skip_model_load=True,
        )
        model.save(str(path))
    return path
