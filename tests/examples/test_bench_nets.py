"""bench_nets: the published counts of each net, and that nothing in them is zero or random."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgegen.support.vendor_logs import DIFFUSERS, quiet


@pytest.fixture(scope="module")
def nets(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("bench_nets")


def count(net: nn.Module, *inputs: torch.Tensor) -> tuple[int, float]:
    """Parameters, and multiplications in units of 1e9; the output must be as alive as the noise."""
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        out = net(*inputs)
    assert out.shape == inputs[0].shape
    assert 0.05 < float(out.std()) < 5.0
    return sum(p.numel() for p in net.parameters()), flops.get_total_flops() / 2e9


def test_slimflow_has_the_published_size_and_work(nets: ModuleType) -> None:
    net = nets.slimflow_cifar10()
    parameters, gmacs = count(net, torch.randn(1, 3, 32, 32), torch.ones(1))
    assert round(parameters / 1e6, 3) == 15.707
    assert round(gmacs, 2) == 3.90
    assert all(p.any() for name, p in net.named_parameters() if name.endswith("weight"))


def test_the_respelled_net_is_the_same(nets: ModuleType) -> None:
    noise, times = torch.randn(1, 3, 32, 32), torch.ones(1)
    with torch.no_grad():
        expected, respelled = (make()(noise, times) for make in (nets.slimflow_cifar10, nets.slimflow_respelled))
    assert torch.allclose(expected, respelled, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports
def test_ddpm_has_the_published_size_and_work(nets: ModuleType) -> None:
    pytest.importorskip("diffusers")
    with quiet(DIFFUSERS):
        net = nets.ddpm_cifar10()
    parameters, gmacs = count(net, torch.randn(1, 3, 32, 32), torch.full((1,), 999.0))
    assert round(parameters / 1e6, 1) == 35.7
    assert round(gmacs, 2) == 6.05


def test_the_demo_student_is_small(nets: ModuleType) -> None:
    net = nets.demo_student()
    parameters, _ = count(net, torch.randn(1, 1, 8, 8), torch.ones(1), torch.tensor([3]))
    assert 100_000 < parameters < 300_000


def test_the_weights_are_the_seeds(nets: ModuleType) -> None:
    first, again, other = nets.demo_student(), nets.demo_student(), nets.demo_student(seed=1)
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert all(p.any() for name, p in first.named_parameters() if name.endswith("weight"))
