"""Blocks of the network: what reads a module's weight is that module's, after every rewrite and in the files."""

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from edgegen import registry
from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.exporters.rewrites import apply
from edgegen.inspection import module_paths
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.program.capture import capture
from edgegen.program.generator import Generator
from edgegen.program.module_paths import block_of
from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.recipe import Quantize
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=16, num_classes=10)


@pytest.fixture(scope="module")
def folded() -> nn.Module:
    """With attention, skips and two resolutions; its time folded away."""
    torch.manual_seed(0)
    net = EdgeUNet(EdgeUNetConfig(16, 1, (8, 16), 1, (1,), 10)).eval()
    randomize_zero_layers(net, 0)
    return Generator(OneStep(net, time=NOISE_TIME), SIGNATURE).folded().module


def layers(program: ExportedProgram) -> dict[str, str | None]:
    """By the parameter's name, the block of the convolution that reads it as its weight."""
    names = program.graph_signature.inputs_to_parameters
    return {
        names[node.args[1].name]: block_of(node)
        for node in program.graph.nodes
        if node.target == torch.ops.aten.conv2d.default and node.args[1].name in names
    }


def check(program: ExportedProgram, *, least: int) -> None:
    found = layers(program)
    known = {name: block for name, block in found.items() if not name.startswith("folded")}
    assert len(known) >= least
    assert known == {name: name.removesuffix(".weight") for name in known}


def test_every_convolution_knows_its_module_after_folding_rewriting_and_saving(
    folded: nn.Module, tmp_path: Path
) -> None:
    program = capture(folded, SIGNATURE, batch=None)
    check(program, least=13)
    norms = [block_of(node) for node in program.graph.nodes if node.target == torch.ops.aten.group_norm.default]
    assert norms[:3] == ["net.down.0.0.norm1", "net.down.0.0.norm2", "net.down.1.0.norm1"]
    torch.export.save(program, tmp_path / "p.pt2")
    loaded = torch.export.load(tmp_path / "p.pt2")
    rewrites = registry.load("backend", "onnx").rewrites
    check(apply(loaded.module(check_guards=False), rewrites, signature=SIGNATURE, batch=None), least=13)


def test_what_belongs_to_no_module_has_no_block() -> None:
    class Net(nn.Module):
        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            return sample * 2

    signature = Signature.of(channels=1, size=4, num_classes=0)
    program = capture(Net(), signature, batch=1)
    assert {block_of(node) for node in program.graph.nodes} == {None}


@pytest.mark.parametrize("scheme", ["fp32", "w8a8"])
def test_an_onnx_file_s_nodes_are_named_after_the_module_whose_bias_they_read(
    folded: nn.Module, scheme: str, tmp_path: Path, in_process: None
) -> None:
    target = Target.parse(f"onnx-{scheme}")
    few = Quantize(samples=8)
    build(folded, SIGNATURE, name="n", target=target, folder=tmp_path, seed=3, metadata={}, quantization=few)
    graph = onnx.load(tmp_path / target.file("n")).graph
    read = {node.name: node.input[2] for node in graph.node if node.op_type == "Conv" and len(node.input) > 2}
    named = {name: bias for name, bias in read.items() if bias.endswith(".bias")}
    assert len(named) >= 12
    for name, bias in named.items():
        assert name.rpartition("/")[0] == bias.removesuffix(".bias")
    assert len({node.name for node in graph.node}) == len(graph.node)
    blocks = module_paths.of_onnx(tmp_path / target.file("n"))
    assert all(blocks[name] == name.rpartition("/")[0] for name in named)


def test_what_a_rewrite_makes_of_several_operations_is_of_the_block_that_it_replaces(
    tmp_path: Path, in_process: None
) -> None:
    """Upsampling before a 3x3 convolution becomes four convolutions; wide 3x3 ones become matrix products."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.wide = nn.Conv2d(1, 64, 3, padding=1, stride=2), nn.Conv2d(64, 64, 3, padding=1)
            self.grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(64, 1, 3, padding=1))

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.grow(self.wide(self.stem(sample)))
            return made

    torch.manual_seed(0)
    signature, target = Signature.of(channels=1, size=32, num_classes=0), Target.parse("executorch-fp32")
    build(OneStep(Net()).eval(), signature, name="n", target=target, folder=tmp_path, seed=3, metadata={})
    (nodes,) = module_paths.of_pte(tmp_path / target.file("n"))
    layers = Counter(block for kind, block in nodes if "Conv2d" in kind)
    assert set(layers) == {"net.stem", "net.wide", "net.grow.1"}
    assert layers["net.grow.1"] > 1


def test_a_file_of_another_exporter_is_read_by_its_scopes_or_its_weights(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Conv", ["x", "up.0.weight", "up.0.bias"], ["a"], name="node_conv2d"),
        helper.make_node("Relu", ["a"], ["b"], name="/down/1/act/Relu"),
        helper.make_node("MatMul", ["b", "one.weight"], ["c"], name="m"),
        helper.make_node("Add", ["one.weight", "two.weight"], ["d"], name="both"),
        helper.make_node("Exp", ["c"], ["e"], name="node_exp"),
    ]
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0])
        for name in ("up.0.weight", "up.0.bias", "one.weight", "two.weight")
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], weights)), tmp_path / "a.onnx")
    assert module_paths.of_onnx(tmp_path / "a.onnx") == {
        **{"node_conv2d": "up.0", "a": "up.0"},
        **{"/down/1/act/Relu": "down.1.act", "b": "up.0"},  # b is what the convolution and its Relu are called together
        **{"m": "one", "c": "one"},
    }


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["fp32", "w8a8"])
def test_a_pte_tells_the_blocks_of_its_delegate_s_layers(
    folded: nn.Module, scheme: str, tmp_path: Path, in_process: None
) -> None:
    target = Target.parse(f"executorch-{scheme}")
    few = Quantize(samples=8)
    build(folded, SIGNATURE, name="n", target=target, folder=tmp_path, seed=3, metadata={}, quantization=few)
    (nodes,) = module_paths.of_pte(tmp_path / target.file("n"))
    net = dict(folded.named_parameters())
    weights = [name for name, value in net.items() if value.ndim == 4 and name.endswith(".weight")]
    wanted = Counter(name.removesuffix(".weight") for name in weights)
    layers = Counter(block for kind, block in nodes if kind in ("XNNConv2d", "XNNDepthwiseConv2d", "XNNFullyConnected"))
    found = {block: count for block, count in layers.items() if block in wanted}
    assert found == dict(wanted)
    others = set(layers) - set(wanted)  # what a GroupNorm was made of
    assert all(block is None or "norm" in block for block in others), others
