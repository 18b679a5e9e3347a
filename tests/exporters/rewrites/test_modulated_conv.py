"""modulated_conv: a kernel for each sample becomes one kernel and two scalings, at any batch; other kernels stay."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgegen.exporters.rewrites import modulated_conv
from edgegen.program.capture import capture
from edgegen.program.fold import fold_program
from edgegen.program.module_paths import RetracedModule
from edgegen.types import Signature, TensorSpec

ATEN = torch.ops.aten
SIGNATURE = Signature(
    (
        TensorSpec("x", ("batch_size", 4, 6, 5), "float32", "noise"),
        TensorSpec("w", ("batch_size", 8), "float32", "features"),
    ),
    (TensorSpec("out", ("batch_size", 3, 6, 5), "float32", "latent"),),
)


class Modulated(nn.Module):
    """A convolution whose `kernel` is made of a weight (outputs, inputs, 3, 3) and a style (batch, inputs)."""

    def __init__(self, kernel: Callable[[Tensor, Tensor], Tensor], *, up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 3, 3))
        self.style = nn.Linear(8, 4)
        self.kernel, self.up = kernel, up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch, given, height, width = x.shape
        kernel = self.kernel(self.weight, self.style(w))
        flat = x.reshape(1, batch * given, height, width)
        if self.up:
            kernel = kernel.transpose(1, 2).reshape(batch * given, 3, 3, 3)
            out = F.conv_transpose2d(flat, kernel, stride=2, padding=1, output_padding=1, groups=batch)
            return F.avg_pool2d(out, 2).view(batch, 3, height, width)
        out = F.conv2d(flat, kernel.reshape(batch * 3, given, 3, 3), padding=1, groups=batch)
        return out.view(batch, 3, height, width)


def as_in_the_paper(weight: Tensor, style: Tensor) -> Tensor:
    kernel = weight[None] * (1 + style)[:, None, :, None, None]
    return kernel * torch.rsqrt(kernel.square().sum([2, 3, 4], keepdim=True) + 1e-8)


def as_in_stylegan2_ada(weight: Tensor, style: Tensor) -> Tensor:
    kernel = weight.unsqueeze(0) * style.reshape(style.shape[0], 1, -1, 1, 1)
    return kernel * (kernel.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt().reshape(style.shape[0], -1, 1, 1, 1)


def with_a_scale(weight: Tensor, style: Tensor) -> Tensor:
    kernel = 0.25 * weight[None] * style.view(-1, 1, 4, 1, 1)
    return kernel * torch.rsqrt(kernel.pow(2).sum([2, 3, 4]) + 1e-8).view(-1, 3, 1, 1, 1)


def without_demodulation(weight: Tensor, style: Tensor) -> Tensor:
    return weight[None] * style[:, None, :, None, None]


def by_place(weight: Tensor, style: Tensor) -> Tensor:
    return weight[None] + style[:, None, :, None, None]


def graph_of(module: nn.Module, batch: int | None) -> fx.GraphModule:
    """As `build` has it: folded."""
    return fold_program(capture(module, SIGNATURE, batch=batch), SIGNATURE)


KERNELS = [as_in_the_paper, as_in_stylegan2_ada, with_a_scale, without_demodulation]


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_one_kernel_for_all_samples(kernel: Callable[[Tensor, Tensor], Tensor], up: bool) -> None:
    torch.manual_seed(0)
    module, x4 = Modulated(kernel, up=up).eval(), torch.zeros(1, 1, 1, 1)
    for captured_batch, batch in ((None, 5), (1, 1)):
        graph = graph_of(module, captured_batch)
        modulated_conv.rewrite(graph)
        (conv,) = (n for n in graph.graph.nodes if n.target in (ATEN.conv2d.default, ATEN.conv_transpose2d.input))
        assert 1 in conv.args[4:], "no groups"
        assert conv.args[1].op == "get_attr", "a weight, which can be quantized"
        kernels = [n for n in graph.graph.nodes if n.target is ATEN.mul.Tensor and n.meta.get("val", x4).ndim == 5]
        assert not kernels, "none for each sample"
        x, w = torch.randn(batch, 4, 6, 5).double(), torch.randn(batch, 8).double()
        exact = module.double()
        out = RetracedModule(graph, {}).double()(x, w)
        torch.testing.assert_close(out, exact(x, w), rtol=1e-6, atol=1e-6)
        module.float()


def test_a_kernel_that_is_no_product_stays() -> None:
    graph = graph_of(Modulated(by_place).eval(), 2)
    before = str(graph.graph)
    modulated_conv.rewrite(graph)
    assert str(graph.graph) == before
