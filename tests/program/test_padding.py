"""padding: a captured convolution has its padding in numbers, and computes what PyTorch computes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.program.padding import NUMBERED, in_numbers
from edgegen.quantize.layers import layers_of
from edgegen.types import Signature, TensorSpec

CASES: list[tuple[int, dict[str, Any]]] = [
    (2, {"kernel_size": 3, "padding": "same"}),
    (2, {"kernel_size": 4, "padding": "same", "bias": False}),
    (2, {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2), "groups": 2}),
    (2, {"kernel_size": 3, "padding": "valid", "stride": 2}),
    (1, {"kernel_size": 4, "padding": "same"}),
    (3, {"kernel_size": (2, 3, 4), "padding": "same", "dilation": (3, 1, 1)}),
]

# PyTorch's advice that such a convolution copies its input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@pytest.mark.parametrize(("axes", "options"), CASES)
def test_every_kind_of_convolution(axes: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](4, 4, **options)
    x = torch.randn(2, 4, *(7, 8, 9)[:axes])
    program = torch.export.export(net, (x,))
    in_numbers(program.graph)
    program.graph_module.recompile()
    assert not any(node.target in NUMBERED for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), net(x), rtol=1e-5, atol=1e-6)


def test_the_functional_form_with_its_defaults() -> None:
    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = torch.nn.functional.conv2d(x, torch.ones(3, 3, 2, 2), padding="same")
            return torch.nn.functional.conv2d(first, torch.ones(3, 3, 1, 1), None, 1, "valid")

    x = torch.randn(1, 3, 5, 6)
    program = torch.export.export(Functional(), (x,))
    in_numbers(program.graph)
    program.graph_module.recompile()
    torch.testing.assert_close(program.module()(x), Functional()(x), rtol=1e-5, atol=1e-6)


def test_what_is_captured_has_layers_to_quantize() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 4, padding="same"), nn.ReLU(), nn.Conv1d(3, 1, 5, padding="same")).eval()
    spec = TensorSpec("sample", ("batch_size", 2, 16), "float32", "noise")
    signature = Signature((spec,), (TensorSpec("out_sample", ("batch_size", 1, 16), "float32", "signal"),), 0)
    graph = capture(net, signature, batch=None).module(check_guards=False)
    assert [layer.name for layer in layers_of(graph)] == ["0", "2"]
    inputs = example_inputs(signature, 3, 0)
    torch.testing.assert_close(
        torch.from_numpy(reference(graph, inputs)), torch.from_numpy(reference(net, inputs)), rtol=1e-5, atol=1e-6
    )
