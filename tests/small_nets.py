"""Small files for tests of what runs them."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgegen.artifacts.build import build, unchecked
from edgegen.artifacts.target import Target
from edgegen.formats.manifest import write_manifest
from edgegen.program.one_step import OneStep
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=10)


def sigmoid(path: Path) -> Path:
    """An ONNX file that makes "out" of "sample", four numbers."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("sample", "out")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["sample"], ["out"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def scaling(path: Path, factor: float) -> Path:
    """An ONNX file of sample * factor, whose weight lies beside it."""
    path.parent.mkdir()
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("sample", "out")]
    weight = numpy_helper.from_array(np.full((1, 64), factor, np.float32), "weight")
    nodes = [helper.make_node("Mul", ["sample", "weight"], ["out"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path


class Net(nn.Module):
    """With whole numbers among its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.classes = nn.Conv2d(1, 8, 3, padding=1), nn.Embedding(10, 8)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, sample: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.silu(self.first(sample) + self.classes(class_labels)[:, :, None, None])
        made: torch.Tensor = self.last(hidden)
        return made


def net_files(place: Path) -> Path:
    """A new folder with the net's net_onnx_fp32.onnx and net_executorch_fp32.pte, and their manifest."""
    place.mkdir()
    torch.manual_seed(0)
    net = OneStep(Net()).eval()
    made = [
        build(net, SIGNATURE, name="net", target=Target.parse(target), folder=place, seed=3, metadata={}).artifact
        for target in ("onnx-fp32", "executorch-fp32")
    ]
    write_manifest(place, made, SIGNATURE, lineage={}, parity=unchecked(made))
    return place


class Gives(nn.Module):
    """A velocity network whose one-step images are these, one after another."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images, self.given = images, 0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        rows = torch.arange(self.given, self.given + len(x)) % len(self.images)
        self.given += len(x)
        return x - self.images[rows]
