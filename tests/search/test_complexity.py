"""The counts of an architecture against the real network: its parameters, and PyTorch's own operation counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import signature_of
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.program.fold import fold
from edgegen.program.one_step import OneStep
from edgegen.recipe import Architecture
from edgegen.search.complexity import DataSpec, complexity_of

SHAPES = [
    (Architecture(channels=(8, 16), blocks=1, embedding=16), DataSpec(1, 8, 10)),
    (Architecture(channels=(8,), blocks=2, attention=(0,)), DataSpec(3, 8, 0)),
    (Architecture(channels=(16, 8, 24), blocks=3, attention=(1, 2), embedding=24), DataSpec(3, 16, 3)),
]


def network_of(model: Architecture, data: DataSpec) -> EdgeUNet:
    config = EdgeUNetConfig(
        data.size, data.channels, model.channels, model.blocks, model.attention, data.num_classes, model.embedding
    )
    return EdgeUNet(config).eval()


@pytest.mark.parametrize(("model", "data"), SHAPES)
def test_parameters_are_those_of_the_network(model: Architecture, data: DataSpec) -> None:
    assert complexity_of(model, data).parameters == sum(p.numel() for p in network_of(model, data).parameters())


@pytest.mark.parametrize(("model", "data"), SHAPES)
def test_macs_are_those_of_the_folded_network(model: Architecture, data: DataSpec) -> None:
    network = network_of(model, data)
    randomize_zero_layers(network, 0)
    folded = fold(OneStep(network, time=1.0), signature_of(network.config)).module
    noise = torch.zeros(1, data.channels, data.size, data.size)
    labels = (torch.zeros(1, dtype=torch.int64),) if data.num_classes else ()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        folded(noise, *labels)
    complexity = complexity_of(model, data)
    assert complexity.macs == counter.get_total_flops() // 2
    assert complexity.attention_macs == sum(
        flops // 2 for name, flops in counter.get_flop_counts()["Global"].items() if "bmm" in str(name)
    )


@pytest.mark.parametrize(("model", "data"), SHAPES)
def test_layers_and_activations_are_those_of_the_network(model: Architecture, data: DataSpec) -> None:
    """Convolutions and norms are counted by hooks; the rest is attention's two products and its softmax."""
    written: list[int] = []

    def record(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        written.append(output.numel())

    network = network_of(model, data)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.register_forward_hook(record)
    labels = torch.zeros(1, dtype=torch.int64) if data.num_classes else None
    with torch.no_grad():
        network(torch.zeros(1, data.channels, data.size, data.size), torch.ones(1), labels)
    last = len(model.channels) - 1
    maps = [(data.size >> level) ** 4 for level in model.attention for _ in range(1 if level == last else 2)]
    complexity = complexity_of(model, data)
    assert complexity.layers == len(written) + 3 * len(maps)
    assert complexity.activations == sum(written) + 2 * sum(maps)
    assert complexity.weights < complexity.parameters


def test_padded_macs_are_those_of_widths_rounded_up_to_a_block() -> None:
    data = DataSpec(3, 16, 0)
    narrow, wide = (Architecture(channels=channels, attention=(1,)) for channels in ((24, 40), (32, 48)))
    of_wide = complexity_of(wide, data)
    assert complexity_of(narrow, data).padded_macs == of_wide.padded_macs == of_wide.macs - of_wide.attention_macs
