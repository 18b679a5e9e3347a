"""The counts of a shape against those of the real net: its parameters, and PyTorch's own counter of operations."""

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
from edgegen.search.complexity import Facts, work

SHAPES = [
    (Architecture(channels=(8, 16), blocks=1, embedding=16), Facts(1, 8, 10)),
    (Architecture(channels=(8,), blocks=2, attention=(0,)), Facts(3, 8, 0)),
    (Architecture(channels=(16, 8, 24), blocks=3, attention=(1, 2), embedding=24), Facts(3, 16, 3)),
]


def net_of(model: Architecture, facts: Facts) -> EdgeUNet:
    config = EdgeUNetConfig(
        facts.size, facts.channels, model.channels, model.blocks, model.attention, facts.num_classes, model.embedding
    )
    return EdgeUNet(config).eval()


@pytest.mark.parametrize(("model", "facts"), SHAPES)
def test_parameters_are_those_of_the_net(model: Architecture, facts: Facts) -> None:
    assert work(model, facts).parameters == sum(p.numel() for p in net_of(model, facts).parameters())


@pytest.mark.parametrize(("model", "facts"), SHAPES)
def test_multiplications_are_those_of_the_folded_net(model: Architecture, facts: Facts) -> None:
    net = net_of(model, facts)
    randomize_zero_layers(net, 0)
    folded = fold(OneStep(net, time=1.0), signature_of(net.config)).module
    noise = torch.zeros(1, facts.channels, facts.size, facts.size)
    labels = (torch.zeros(1, dtype=torch.int64),) if facts.num_classes else ()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        folded(noise, *labels)
    found = work(model, facts)
    assert found.macs == counter.get_total_flops() // 2
    assert found.attention_macs == sum(
        flops // 2 for name, flops in counter.get_flop_counts()["Global"].items() if "bmm" in str(name)
    )


@pytest.mark.parametrize(("model", "facts"), SHAPES)
def test_layers_and_what_they_write_are_those_of_the_net(model: Architecture, facts: Facts) -> None:
    """Convolutions and norms as hooks see them; the rest is attention's two products and its softmax."""
    written: list[int] = []

    def saw(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        written.append(output.numel())

    net = net_of(model, facts)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.register_forward_hook(saw)
    labels = torch.zeros(1, dtype=torch.int64) if facts.num_classes else None
    with torch.no_grad():
        net(torch.zeros(1, facts.channels, facts.size, facts.size), torch.ones(1), labels)
    last = len(model.channels) - 1
    maps = [(facts.size >> level) ** 4 for level in model.attention for _ in range(1 if level == last else 2)]
    found = work(model, facts)
    assert found.layers == len(written) + 3 * len(maps)
    assert found.activations == sum(written) + 2 * sum(maps)
    assert found.weights < found.parameters


def test_filled_multiplications_are_those_of_the_next_wider_blocks() -> None:
    facts = Facts(3, 16, 0)
    narrow, wide = (Architecture(channels=channels, attention=(1,)) for channels in ((24, 40), (32, 48)))
    of_wide = work(wide, facts)
    assert work(narrow, facts).filled_macs == of_wide.filled_macs == of_wide.macs - of_wide.attention_macs
