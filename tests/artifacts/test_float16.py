"""float16 that overflows, in ONNX and Core ML files: the layer by name, and mixed files that are true."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.formats import mlpackage
from edgegen.program.float16_range import LARGEST, largest_values
from edgegen.program.generator import Generator
from edgegen.recipe import Export
from edgegen.types import Artifact, Parity, Signature
from edgegen.verification.verify import Verifier

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)


class Loud(nn.Module):
    """The middle layer reaches some 1e5, and the last one brings that back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.after = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.middle.weight.data *= 1e5
        self.last.weight.data *= 1e-5

    def forward(self, sample: Tensor) -> Tensor:
        out: Tensor = self.after(torch.sin(self.last(self.middle(torch.relu(self.first(sample))))))
        return out


class SquaredInside(nn.Module):
    """Values of some thousand, whose squares overflow inside the norm alone: its variance is infinite, its output 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.last = nn.Conv2d(4, 1, 3, padding=1)
        self.first.weight.data *= 1e3

    def forward(self, sample: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.norm(self.first(sample))))
        return out


class Quiet(SquaredInside):
    def __init__(self) -> None:
        super().__init__()
        self.first.weight.data /= 1e3


@pytest.fixture
def verifiers(in_process: None) -> Iterator[dict[str, Verifier]]:
    """By name, the generators with their checks."""
    torch.manual_seed(0)
    made = {
        net.__name__: Verifier(Generator(net().eval(), SIGNATURE), samples=4, seed=0)
        for net in (Loud, SquaredInside, Quiet)
    }
    yield made
    for verifier in made.values():
        verifier.process.close()


def checked(verifier: Verifier, target: str, fp16: str, folder: Path) -> tuple[Artifact, Parity]:
    options = Export.model_validate({"fp16": fp16})
    source = verifier.generator.saved()
    artifact = build(
        source, SIGNATURE, name="net", target=Target.parse(target), folder=folder, seed=0, metadata={}, options=options
    ).artifact
    return artifact, verifier(artifact, folder / artifact.file)[0]


def test_a_layer_beyond_float16_is_named_and_stays_float32(verifiers: dict[str, Verifier], tmp_path: Path) -> None:
    verifier = verifiers["Loud"]
    inputs, _ = verifier._expected(None)
    net = verifier.generator.module
    middle = net.middle(torch.relu(net.first(torch.tensor(inputs["sample"])))).detach()
    reached = f"{float(middle.abs().max()):,.0f}"
    assert float(middle.abs().max()) > LARGEST
    plain, parity = checked(verifier, "coreml-fp16", "plain", tmp_path)
    assert parity.status == "failed"
    assert f"in float32 middle reaches {reached}; float16 ends at 65,504" in parity.reason
    assert 'set [export] fp16 = "safe", which leaves such layers in float32' in parity.reason
    assert "middle reaches" in plain.details["caution"]
    for target in ("coreml-fp16", "onnx-fp16"):
        safe, parity = checked(verifier, target, "safe", tmp_path)
        assert (parity.status, safe.details["float32_layers"]) == ("ok", ["middle", "last"])
        assert "caution" not in safe.details
    assert safe.nbytes < checked(verifier, "onnx-fp32", "plain", tmp_path)[0].nbytes + 2000


def test_an_onnx_file_keeps_such_numbers_in_float32_all_the_way(verifiers: dict[str, Verifier], tmp_path: Path) -> None:
    """Read from the graph: no cast to float16 of what goes from one of the two layers to the other."""
    checked(verifiers["Loud"], "onnx-fp16", "safe", tmp_path)
    graph = onnx.load(tmp_path / "net_onnx_fp16.onnx").graph
    layers = [node for node in graph.node if node.op_type == "Conv"]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights = [types[node.input[1]] for node in layers]
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert weights == [half, full, full, half]
    assert layers[1].output[0] == layers[2].input[0]
    caution = checked(verifiers["Loud"], "onnx-fp16", "plain", tmp_path)[0].details["caution"]
    assert caution.endswith('devices may overflow; [export] fp16 = "safe" leaves these in float32')


def test_squares_inside_a_norm_are_seen(verifiers: dict[str, Verifier], tmp_path: Path) -> None:
    verifier = verifiers["SquaredInside"]
    _, parity = checked(verifier, "coreml-fp16", "plain", tmp_path)
    assert parity.status == "failed"
    assert "in float32 norm reaches" in parity.reason
    safe, parity = checked(verifier, "coreml-fp16", "safe", tmp_path)
    assert parity.status == "ok"
    assert safe.details["float32_layers"][0] == "norm"
    package = mlpackage.read(tmp_path / safe.file)
    (block,) = package.spec.mlProgram.functions["main"].block_specializations.values()
    convolutions = [op for op in block.operations if op.type == "conv"]
    assert [op.outputs[0].type.tensorType.dataType for op in convolutions] == [10, 10], "MIL's FLOAT16"


@pytest.mark.long
def test_a_quiet_network_gives_the_same_file_either_way(verifiers: dict[str, Verifier], tmp_path: Path) -> None:
    for target in ("onnx-fp16", "coreml-fp16"):
        (plain, _), (safe, parity) = (checked(verifiers["Quiet"], target, fp16, tmp_path) for fp16 in ("plain", "safe"))
        assert (safe.details["float32_layers"], parity.status) == ([], "ok")
        assert safe.sha256 == plain.sha256
        assert "caution" not in plain.details


def test_masks_and_infinities_are_no_activations() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.full((8, 8), torch.finfo(torch.float32).min).triu(1)
            hidden = torch.full((8, 8), -torch.inf).triu(4)
            return torch.softmax(100 * x + mask + hidden, -1)

    x = torch.ones(2, 1, 8, 8)
    graph = torch.export.export(Masked(), (x,)).module(check_guards=False)
    largest = largest_values(graph, [{"x": x.numpy()}])
    assert max(largest.values()) == 100.0
