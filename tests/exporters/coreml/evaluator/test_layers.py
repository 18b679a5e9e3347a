"""Every op of mil_layers against PyTorch in float64: activations, convolutions, pooling, norms, resizing, products."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import special

from edgegen.exporters.coreml.evaluator import layers

pytest.importorskip("coremltools")

from coremltools.converters.mil import Builder as mb

Array = NDArray[Any]


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unit(*shape: int) -> Array:
    return np.random.default_rng(2).uniform(0.05, 0.95, shape).astype(np.float32)


class Case(NamedTuple):
    """`body` builds the op on the inputs; `reference` computes it from the same inputs as float64 or int64 arrays."""

    body: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: tuple[Array, ...]


def on_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference in PyTorch, fed with float64 tensors."""
    return lambda *arrays: function(*(torch.from_numpy(array) for array in arrays))


def op(name: str) -> Callable[..., Any]:
    """The MIL op `name` on its inputs x and y."""
    return lambda *inputs: getattr(mb, name)(**dict(zip("xy", inputs, strict=False)))


def double(array: Array) -> torch.Tensor:
    return torch.from_numpy(array).double()


def activations() -> Iterator[tuple[str, Case]]:
    x = noise(2, 5) * 2
    functions: dict[str, Callable[..., Any]] = {
        "sigmoid": special.expit,
        "silu": lambda x: x * special.expit(x),
        "relu": lambda x: np.maximum(x, 0),
        "relu6": lambda x: np.clip(x, 0, 6),
        "softplus": lambda x: np.log1p(np.exp(x)),
        "softsign": lambda x: x / (1 + np.abs(x)),
    }
    for name, function in functions.items():
        yield name, Case(op(name), function, (3 * x,))
    for mode, name in (("EXACT", "none"), ("TANH_APPROXIMATION", "tanh")):
        reference = on_torch(lambda x, name=name: F.gelu(x, approximate=name))
        yield f"gelu.{name}", Case(lambda x, mode=mode: mb.gelu(x=x, mode=mode), reference, (x,))
    sigmoid = Case(lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"), lambda x: x * special.expit(1.702 * x), (x,))
    yield "gelu.sigmoid", sigmoid
    for name, function in (("elu", F.elu), ("leaky_relu", F.leaky_relu)):
        reference = on_torch(lambda x, function=function: function(x, 0.3))
        yield name, Case(lambda x, name=name: getattr(mb, name)(x=x, alpha=0.3), reference, (x,))
    yield (
        "thresholded_relu",
        Case(lambda x: mb.thresholded_relu(x=x, alpha=0.3), lambda x: np.where(x >= 0.3, x, 0), (x,)),
    )
    two: dict[str, Callable[..., Any]] = {
        "clamped_relu": lambda x: np.minimum(np.where(x >= 0, x, 0.3 * x), 0.8),
        "linear_activation": lambda x: 0.3 * x + 0.8,
        "scaled_tanh": lambda x: 0.3 * np.tanh(0.8 * x),
        "sigmoid_hard": lambda x: np.clip(0.3 * x + 0.8, 0, 1),
    }
    for name, reference in two.items():
        yield name, Case(lambda x, name=name: getattr(mb, name)(x=x, alpha=0.3, beta=0.8), reference, (x,))
    slopes, image = np.float32([0.1, 0.2, 0.3]), noise(1, 3, 2, 2)
    yield (
        "prelu",
        Case(
            lambda x: mb.prelu(x=x, alpha=slopes),
            on_torch(lambda x: F.prelu(x, torch.tensor(slopes).double())),
            (image,),
        ),
    )
    yield (
        "softplus_parametric",
        Case(
            lambda x: mb.softplus_parametric(x=x, alpha=slopes, beta=slopes + 1),
            lambda x: slopes[:, None, None] * np.log1p(np.exp((slopes + 1)[:, None, None] * x)),
            (image,),
        ),
    )
    yield "softmax", Case(lambda x: mb.softmax(x=x, axis=1), lambda x: special.softmax(x, 1), (image,))


def products() -> Iterator[tuple[str, Case]]:
    x, y, weight, bias = noise(2, 3, 4), noise(2, 4, 5, seed=1), noise(6, 4), noise(6)
    yield "matmul", Case(lambda x, y: mb.matmul(x=x, y=y), np.matmul, (x, y))
    yield (
        "matmul.transposed",
        Case(
            lambda x, y: mb.matmul(x=y, y=x, transpose_x=True, transpose_y=True),
            lambda x, y: (x @ y).swapaxes(1, 2),
            (x, y),
        ),
    )
    yield (
        "linear",
        Case(lambda x: mb.linear(x=x, weight=weight, bias=bias), lambda x: x @ double(weight).numpy().T + bias, (x,)),
    )
    yield (
        "einsum",
        Case(
            lambda x, y: mb.einsum(values=[x, y], equation="nchw,nwhu->nchu"),
            lambda x, y: np.einsum("nchw,nwhu->nchu", x, y),
            (noise(1, 2, 3, 4), noise(1, 4, 3, 5)),
        ),
    )


def convolutions() -> Iterator[tuple[str, Case]]:
    x, bias = noise(1, 4, 7, 6), noise(6)
    kernel, grouped, turned = noise(6, 4, 3, 2), noise(6, 2, 3, 3), noise(4, 6, 4, 4)
    yield (
        "conv",
        Case(
            lambda x: mb.conv(x=x, weight=kernel, bias=bias, strides=[2, 1], pad_type="custom", pad=[1, 2, 0, 1]),
            on_torch(lambda x: F.conv2d(F.pad(x, (0, 1, 1, 2)), double(kernel), double(bias), stride=(2, 1))),
            (x,),
        ),
    )
    for kind in ("same", "same_lower"):
        before = 0 if kind == "same" else 1
        yield (
            f"conv.{kind}",
            Case(
                lambda x, kind=kind: mb.conv(x=x, weight=grouped, strides=[2, 2], pad_type=kind, groups=2),
                on_torch(
                    lambda x, before=before: F.conv2d(
                        F.pad(x, (before, 1 - before, 1, 1)), double(grouped), stride=2, groups=2
                    )
                ),
                (x,),
            ),
        )
    yield (
        "conv.dilated",
        Case(
            lambda x: mb.conv(x=x, weight=kernel, dilations=[2, 3], pad_type="valid"),
            on_torch(lambda x: F.conv2d(x, double(kernel), dilation=(2, 3))),
            (x,),
        ),
    )
    yield (
        "conv.line",
        Case(
            lambda x: mb.conv(x=x, weight=noise(5, 4, 3), pad_type="valid"),
            on_torch(lambda x: F.conv1d(x, double(noise(5, 4, 3)))),
            (noise(1, 4, 9),),
        ),
    )
    yield (
        "conv_transpose",
        Case(
            lambda x: mb.conv_transpose(
                x=x, weight=turned, bias=bias, strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]
            ),
            on_torch(lambda x: F.conv_transpose2d(x, double(turned), double(bias), stride=2, padding=1)),
            (x,),
        ),
    )
    yield (
        "conv_transpose.output_shape",
        Case(
            lambda x: mb.conv_transpose(
                x=x,
                weight=noise(4, 3, 3, 3),
                bias=bias,
                strides=[3, 3],
                pad_type="custom",
                pad=[0] * 4,
                groups=2,
                output_shape=[1, 6, 22, 19],
            ),
            on_torch(
                lambda x: F.conv_transpose2d(
                    x, double(noise(4, 3, 3, 3)), double(bias), stride=3, groups=2, output_padding=1
                )
            ),
            (x,),
        ),
    )


def pools() -> Iterator[tuple[str, Case]]:
    x, window = noise(1, 2, 7, 6), {"kernel_sizes": [3, 2], "strides": [2, 2], "pad_type": "custom"}
    yield (
        "max_pool",
        Case(
            lambda x: mb.max_pool(x=x, **window, pad=[1, 1, 1, 1]),
            on_torch(lambda x: F.max_pool2d(x, (3, 2), 2, 1)),
            (x,),
        ),
    )
    yield (
        "max_pool.ceil",
        Case(
            lambda x: mb.max_pool(x=x, **window, pad=[0] * 4, ceil_mode=True),
            on_torch(lambda x: F.max_pool2d(x, (3, 2), 2, ceil_mode=True)),
            (noise(1, 2, 8, 6),),
        ),
    )
    for exclude in (False, True):
        yield (
            f"avg_pool.{exclude}",
            Case(
                lambda x, exclude=exclude: mb.avg_pool(
                    x=x, **window, pad=[1, 1, 1, 1], exclude_padding_from_average=exclude
                ),
                on_torch(lambda x, exclude=exclude: F.avg_pool2d(x, (3, 2), 2, 1, count_include_pad=not exclude)),
                (x,),
            ),
        )


def norms() -> Iterator[tuple[str, Case]]:
    x, gamma, beta, mean, variance = noise(2, 3, 4, 5), noise(3), noise(3, seed=1), noise(3, seed=2), unit(3)
    affine = {"gamma": gamma, "beta": beta, "epsilon": 1e-3}
    weights = double(gamma), double(beta)
    yield (
        "batch_norm",
        Case(
            lambda x: mb.batch_norm(x=x, mean=mean, variance=variance, **affine),
            on_torch(lambda x: F.batch_norm(x, double(mean), double(variance), *weights, eps=1e-3)),
            (x,),
        ),
    )
    yield (
        "instance_norm",
        Case(
            lambda x: mb.instance_norm(x=x, **affine),
            on_torch(lambda x: F.instance_norm(x, None, None, *weights, eps=1e-3)),
            (x,),
        ),
    )
    yield (
        "layer_norm",
        Case(
            lambda x: mb.layer_norm(x=x, axes=[2, 3], gamma=noise(4, 5), beta=noise(4, 5, seed=1), epsilon=1e-3),
            on_torch(lambda x: F.layer_norm(x, (4, 5), double(noise(4, 5)), double(noise(4, 5, seed=1)), eps=1e-3)),
            (x,),
        ),
    )
    yield (
        "layer_norm.channels",
        Case(
            lambda x: mb.layer_norm(x=x, axes=[1], **affine),
            on_torch(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (3,), *weights, eps=1e-3).permute(0, 3, 1, 2)),
            (x,),
        ),
    )


def resizes() -> Iterator[tuple[str, Case]]:
    x, twice = noise(1, 4, 3, 5), {"scale_factor_height": 2, "scale_factor_width": 2}
    yield (
        "upsample_nearest_neighbor",
        Case(
            lambda x: mb.upsample_nearest_neighbor(x=x, **twice),
            on_torch(lambda x: F.interpolate(x, scale_factor=2)),
            (x,),
        ),
    )
    yield (
        "resize_nearest_neighbor",
        Case(
            lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=7, target_size_width=4),
            on_torch(lambda x: F.interpolate(x, (7, 4))),
            (x,),
        ),
    )
    for corners in (False, True):
        yield (
            f"upsample_bilinear.{corners}",
            Case(
                lambda x, corners=corners: mb.upsample_bilinear(x=x, **twice, align_corners=corners),
                on_torch(
                    lambda x, corners=corners: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=corners)
                ),
                (x,),
            ),
        )
    yield (
        "upsample_bilinear.edges",
        Case(
            lambda x: mb.upsample_bilinear(x=x, **twice, align_corners=False, half_pixel_centers=False),
            lambda x: by_grid(x, (6, 10), lambda i, n, size: i * n / size),
            (x,),
        ),
    )
    # The grids as the MIL reference words them, with Xin = n and Xout = size.
    grids: dict[str, Callable[[Array, int, int], Array]] = {
        "STRICT_ALIGN_CORNERS": lambda i, n, size: i * (n - 1) / (size - 1),
        "ALIGN_CORNERS": lambda i, n, size: i * (n - 1) / (size - 1),
        "DEFAULT": lambda i, n, size: i * (n - n / size) / (size - 1),
        "OFFSET_CORNERS": lambda i, n, size: 0.5 * max(1, n - 1) / size + i * max(1, n - 1) / size,
        "UNALIGN_CORNERS": lambda i, n, size: i * n / size + 0.5 * n / size - 0.5,
    }
    for mode, grid in grids.items():
        yield (
            f"resize_bilinear.{mode}",
            Case(
                lambda x, mode=mode: mb.resize_bilinear(
                    x=x, target_size_height=7, target_size_width=4, sampling_mode=mode
                ),
                lambda x, grid=grid: by_grid(x, (7, 4), grid),
                (x,),
            ),
        )
    yield (
        "resize_bilinear.one",
        Case(
            lambda x: mb.resize_bilinear(x=x, target_size_height=1, target_size_width=1, sampling_mode="ALIGN_CORNERS"),
            lambda x: x[:, :, 1:2, 2:3],
            (x,),
        ),
    )
    yield from resamplings(x)
    yield "crop", Case(lambda x: mb.crop(x=x, crop_height=[1, 0], crop_width=[1, 2]), lambda x: x[:, :, 1:, 1:-2], (x,))
    yield (
        "pixel_shuffle",
        Case(lambda x: mb.pixel_shuffle(x=x, upscale_factor=2), on_torch(lambda x: F.pixel_shuffle(x, 2)), (x,)),
    )
    yield (
        "pixel_unshuffle",
        Case(
            lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
            on_torch(lambda x: F.pixel_unshuffle(x, 2)),
            (noise(1, 2, 4, 6),),
        ),
    )


def resamplings(x: Array) -> Iterator[tuple[str, Case]]:
    """All paddings that coremltools makes of grid_sample, with coordinates beyond the picture."""
    grid = np.random.default_rng(3).uniform(-2.2, 2.2, (x.shape[0], 5, 6, 2)).astype(np.float32)
    paddings = [("constant", False), ("constant", True), ("border", False), ("border", True)]
    for padding, corners in (*paddings, ("symmetric", False), ("reflection", True)):
        for mode in ("bilinear", "nearest"):
            yield (
                f"resample.{mode}.{padding}.{corners}",
                Case(
                    lambda x, grid, mode=mode, padding=padding, corners=corners: mb.resample(
                        x=x,
                        coordinates=grid,
                        sampling_mode=mode,
                        padding_mode=padding,
                        padding_value=0.0,
                        coordinates_mode="normalized_minus_one_to_one",
                        align_corners=corners,
                    ),
                    lambda x, grid, mode=mode, padding=padding, corners=corners: sampled(
                        x, grid, mode, padding, corners=corners
                    ),
                    (x, grid),
                ),
            )


def sampled(x: Array, grid: Array, mode: str, padding: str, *, corners: bool) -> Array:
    """Point by point in numpy: a picture far larger than needed, continued by numpy.pad, read at the coordinates."""
    margin = 4 * max(x.shape[2:])
    continued = {"constant": "constant", "border": "edge", "symmetric": "symmetric", "reflection": "reflect"}[padding]
    wide = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode=continued)  # type: ignore[call-overload]
    out = np.zeros((x.shape[0], x.shape[1], *grid.shape[1:3]))
    for b, i, j in np.ndindex(*grid.shape[:3]):
        places = []
        for value, size in zip(grid[b, i, j], (x.shape[3], x.shape[2]), strict=True):
            place = (value + 1) / 2 * (size - 1) if corners else ((value + 1) * size - 1) / 2
            places.append(np.clip(place, 0, size - 1) if padding == "border" else place)
        column, row = places
        if mode == "nearest":
            out[b, :, i, j] = wide[b, :, round(row) + margin, round(column) + margin]
            continue
        top, left = int(np.floor(row)), int(np.floor(column))
        for y, x_ in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            weight = (1 - abs(row - y)) * (1 - abs(column - x_))
            out[b, :, i, j] += weight * wide[b, :, y + margin, x_ + margin]
    return out


def by_grid(x: Array, sizes: tuple[int, int], grid: Callable[[Array, int, int], Array]) -> Array:
    """Linear interpolation of the last two dimensions by numpy.interp at `grid(i, length, size)`, held at the edges."""
    for axis, size in zip((-2, -1), sizes, strict=True):
        n = x.shape[axis]
        points = grid(np.arange(size), n, size)
        x = np.apply_along_axis(lambda row, n=n, points=points: np.interp(points, np.arange(n), row), axis, x)
    return x


GROUPS = (activations, products, convolutions, pools, norms, resizes)
CASES = {name: case for group in GROUPS for name, case in group()}


@pytest.fixture(scope="module")
def results(evaluate: Callable[..., Any]) -> Any:
    return evaluate(CASES)


@pytest.mark.parametrize("name", CASES)
def test_op(name: str, results: Any, compare: Callable[..., None]) -> None:
    assert name.split(".")[0] in results.kinds, "coremltools wrote the program without this op"
    compare(results.values[name], CASES[name])


def test_attention_of_ios_18(evaluate: Callable[..., Any], compare: Callable[..., None]) -> None:
    mask = noise(1, 1, 3, 5)
    case = Case(
        lambda x, y: mb.scaled_dot_product_attention(query=x, key=y, value=y, attn_mask=mask),
        on_torch(lambda x, y: F.scaled_dot_product_attention(x, y, y, double(mask))),
        (noise(1, 2, 3, 4), noise(1, 2, 5, 4, seed=1)),
    )
    results = evaluate({"attention": case}, target="iOS18")
    assert "scaled_dot_product_attention" in results.kinds
    compare(results.values["attention"], case)


def test_every_op_has_a_case() -> None:
    assert {name.split(".")[0] for name in CASES} | {"scaled_dot_product_attention"} == set(layers.OPS)
