"""resampling: repeats and means over split axes become upsampling and pooling, at any batch; other reshapes stay."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import NETWORKS
from torch import Tensor, nn

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.exporters.rewrites import resampling
from edgegen.models.sources.load import load_sources
from edgegen.program.capture import capture, reference
from edgegen.program.fold import fold, fold_program
from edgegen.program.inputs import example_inputs
from edgegen.registry import load
from edgegen.support.vendor_logs import DIFFUSERS, quiet
from edgegen.types import Signature, TensorSpec
from edgegen.verification.parity import psnr_db

ATEN = torch.ops.aten


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def repeat(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h, 1, w, 1).repeat(1, 1, 1, 2, 1, 3).reshape(n, c, 2 * h, 3 * w)


def expand(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(n, c, 2 * h, 2 * w)


def expand_of_view(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h, 1, w, 1).expand(-1, -1, -1, 2, -1, 2).contiguous().view(n, c, 2 * h, 2 * w)


def mean(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 3, 3).mean(dim=(3, 5))


def mean_counted_back(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).mean(dim=(-1, -3))


def tiles(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, 1, h, 1, w).repeat(1, 1, 2, 1, 2, 1).reshape(n, c, 2 * h, 2 * w)


def other_view_after(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h, 1, w, 1).repeat(1, 1, 1, 2, 1, 2).reshape(n, 2 * c, h, 2 * w)


def mean_of_tiles(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, 2, h // 2, 2, w // 2).mean(dim=(2, 4))


def mean_kept(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(dim=(3, 5), keepdim=True)


def rewritten(function: Callable[[Tensor], Tensor], *, dynamic: bool) -> tuple[float, set[object]]:
    """The largest error against the function itself in float64, and the operators of resampling now called."""
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    module = Calls(function)
    graph_module = torch.export.export(module, (x,), dynamic_shapes=shapes).module()
    resampling.rewrite(graph_module)
    targets = {node.target for node in graph_module.graph.nodes}
    found = targets & {ATEN.upsample_nearest2d.vec, ATEN.avg_pool2d.default}
    x = torch.randn(5 if dynamic else 2, 3, 4, 6, dtype=torch.float64)
    return float((graph_module(x) - function(x)).abs().max()), found


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("function", [repeat, expand_of_view])
def test_a_repeat_is_upsampling(function: Callable[[Tensor], Tensor], dynamic: bool) -> None:
    assert rewritten(function, dynamic=dynamic) == (0.0, {ATEN.upsample_nearest2d.vec})


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("function", [mean, mean_counted_back])
def test_a_mean_is_pooling(function: Callable[[Tensor], Tensor], dynamic: bool) -> None:
    error, found = rewritten(function, dynamic=dynamic)
    assert error < 1e-15
    assert found == {ATEN.avg_pool2d.default}


@pytest.mark.parametrize("function", [tiles, other_view_after, mean_of_tiles, mean_kept, expand])
def test_the_rest_is_left_alone(function: Callable[[Tensor], Tensor]) -> None:
    assert rewritten(function, dynamic=False) == (0.0, set())


# up, down, padding: those of diffusers' FirUpsample2D and FirDownsample2D, with and without their convolution; others
FIR = [(2, 1, (2, 1)), (1, 2, (1, 1)), (1, 1, (2, 2)), (1, 1, (2, 1)), (1, 3, (0, 2)), (3, 1, (2, 2))]


class UpFirDown(nn.Module):
    """diffusers' own function, with a kernel (4, `columns`)."""

    def __init__(self, up: int, down: int, padding: tuple[int, int], *, columns: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.randn(4, columns))
        self.arguments = (up, down, padding)

    def forward(self, sample: Tensor) -> Tensor:
        with quiet(DIFFUSERS):
            from diffusers.models.upsampling import upfirdn2d_native

        out: Tensor = upfirdn2d_native(sample, self.kernel, *self.arguments)
        return out


@pytest.mark.parametrize(
    ("up", "down", "padding", "any_size"), [*((*numbers, False) for numbers in FIR), (*FIR[0], True), (*FIR[1], True)]
)
def test_upfirdn_is_a_convolution(up: int, down: int, padding: tuple[int, int], any_size: bool) -> None:
    torch.manual_seed(0)
    net, x = UpFirDown(up, down, padding, columns=4 if any_size else 3).eval(), torch.randn(2, 3, 6, 8)
    sizes = tuple(net(x).shape[2:])
    signature = replace(
        Signature.of(channels=3, size=(6, 8), num_classes=0),
        outputs=(TensorSpec("out_sample", ("batch_size", 3, *sizes), "float32", "latent"),),
    )
    graph = fold_program(capture(net, signature, batch=2, any_size=any_size), signature)
    resampling.rewrite(graph)
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count(ATEN.conv2d.default) + targets.count(ATEN.conv_transpose2d.input) == 1
    assert not {ATEN.view.default, ATEN.reshape.default, ATEN.permute.default} & set(targets)
    x = torch.randn(2, 3, 10, 14) if any_size else x
    torch.testing.assert_close(graph(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_a_unet_of_skip_blocks_to_core_ml(tmp_path: Path, in_process: None) -> None:
    """upfirdn between all levels, and an image that is resampled beside the features; other runtimes: families."""
    (source,) = load_sources(str(NETWORKS["unet2d_skip"](tmp_path / "net")))
    target, signature = Target.parse("coreml-fp32"), source.signature
    folded = fold(source.module, signature).module
    made = build(folded, signature, name="net", target=target, folder=tmp_path, seed=0, metadata={})
    inputs = example_inputs(signature, 2, 0)
    expected = reference(source.module, inputs)
    out = load("backend", "coreml").open(tmp_path / made.artifact.file)(inputs)["out_sample"]
    assert psnr_db(expected, np.asarray(out), data_range=float(np.ptp(expected))) > 100.0
