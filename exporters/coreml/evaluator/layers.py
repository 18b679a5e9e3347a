"""Core ML (MIL) ops in torch: activations, convolutions, pooling, norms, resizing and products.

The same conventions as in ops.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgegen.exporters.coreml.evaluator.ops import Op, ints, unary

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(channels,) -> a shape that multiplies (batch, channels, ...)."""
    return values.reshape([-1 if dim == 1 else 1 for dim in range(like.ndim)]) if values.ndim else values


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)  # the constant of the MIL reference
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def elu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, per_channel(alpha, x) * x)


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return per_channel(alpha, x) * F.softplus(per_channel(beta, x) * x)


def softmax(x: Tensor, axis: Tensor) -> Tensor:
    return torch.softmax(x, dim=int(axis))


def pads(kind: str, pad: Tensor | None, sizes: list[int], kernel: list[int], strides: list[int]) -> list[list[int]]:
    """[before, after] of each spatial dimension; `kernel` is dilated already."""
    if kind == "custom" and pad is not None:
        return [[int(before), int(after)] for before, after in pad.reshape(-1, 2).tolist()]
    if kind in ("same", "same_lower"):
        totals = [
            max(0, stride * math.ceil(size / stride) - size + extent - stride)
            for size, extent, stride in zip(sizes, kernel, strides, strict=True)
        ]
        halves = [total // 2 if kind == "same" else total - total // 2 for total in totals]
        return [[half, total - half] for half, total in zip(halves, totals, strict=True)]
    return [[0, 0] for _ in sizes]


def padded(x: Tensor, pairs: list[list[int]], value: float = 0.0) -> Tensor:
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def conv(
    x: Tensor,
    weight: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    dilations: Tensor,
    groups: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    steps, spread = ints(strides), ints(dilations)
    extent = [(size - 1) * by + 1 for size, by in zip(weight.shape[2:], spread, strict=True)]
    x = padded(x, pads(pad_type, pad, list(x.shape[2:]), extent, steps))
    out: Tensor = CONVOLUTIONS[x.ndim - 2](x, weight, bias, stride=steps, dilation=spread, groups=int(groups))
    return out


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    dilations: Tensor,
    groups: Tensor,
    bias: Tensor | None = None,
    output_shape: Tensor | None = None,
) -> Tensor:
    """The whole product, cut by `pad`; `output_shape` may ask for more at the end, where nothing is added."""
    if pad_type not in ("valid", "custom"):
        raise ValueError(f"conv_transpose with pad_type '{pad_type}' has no reference in PyTorch")
    full: Tensor = TRANSPOSED[x.ndim - 2](x, weight, stride=ints(strides), dilation=ints(dilations), groups=int(groups))
    pairs = pads(pad_type, pad, list(x.shape[2:]), [], [])
    for dim, (before, after) in enumerate(pairs, start=2):
        size = full.shape[dim] - before - after if output_shape is None else ints(output_shape)[dim]
        missing = max(0, before + size - full.shape[dim])
        full = padded(full, [[0, missing if d == dim else 0] for d in range(2, full.ndim)]).narrow(dim, before, size)
    return full if bias is None else full + per_channel(bias, full)


def max_pool(x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor, ceil_mode: Tensor) -> Tensor:
    kernel, steps = ints(kernel_sizes), ints(strides)
    x = padded(x, pads(pad_type, pad, list(x.shape[2:]), kernel, steps), value=-math.inf)
    out: Tensor = MAX_POOLS[x.ndim - 2](x, kernel, steps, ceil_mode=bool(ceil_mode))
    return out


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    ceil_mode: Tensor,
    exclude_padding_from_average: Tensor,
) -> Tensor:
    """The mean over the window; padding counts as zeros unless it is excluded."""
    kernel, steps = ints(kernel_sizes), ints(strides)
    pairs = pads(pad_type, pad, list(x.shape[2:]), kernel, steps)

    def mean(values: Tensor) -> Tensor:
        out: Tensor = AVERAGE_POOLS[x.ndim - 2](padded(values, pairs), kernel, steps, ceil_mode=bool(ceil_mode))
        return out

    return mean(x) / mean(torch.ones_like(x)) if bool(exclude_padding_from_average) else mean(x)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def instance_norm(x: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=float(epsilon))


def layer_norm(
    x: Tensor, axes: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    dims = [axis % x.ndim for axis in ints(axes)]
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    out = (x - mean) * torch.rsqrt(variance + epsilon)
    shape = [x.shape[dim] if dim in dims else 1 for dim in range(x.ndim)]
    out = out if gamma is None else out * gamma.reshape(shape)
    return out if beta is None else out + beta.reshape(shape)


def nearest(x: Tensor, dim: int, size: int) -> Tensor:
    index = torch.arange(size) * x.shape[dim] // size
    return x.index_select(dim, index)


def scaled(x: Tensor, height: Tensor, width: Tensor) -> tuple[int, int]:
    """The sizes of the last two dimensions times their factors, rounded down."""
    return math.floor(x.shape[-2] * float(height)), math.floor(x.shape[-1] * float(width))


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor) -> Tensor:
    height, width = scaled(x, scale_factor_height, scale_factor_width)
    return nearest(nearest(x, -2, height), -1, width)


def resize_nearest_neighbor(x: Tensor, target_size_height: Tensor, target_size_width: Tensor) -> Tensor:
    return nearest(nearest(x, -2, int(target_size_height)), -1, int(target_size_width))


def crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    """Take [before, after] off the rows and the columns."""
    (top, bottom), (left, right) = ints(crop_height), ints(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def linear_resize(x: Tensor, dim: int, size: int, mode: str) -> Tensor:
    """Linear interpolation along `dim` at the grid points that the MIL reference gives for each sampling mode."""
    length = x.shape[dim]
    at = torch.arange(size, dtype=torch.float64)
    if mode == "STRICT_ALIGN_CORNERS" or (mode == "ALIGN_CORNERS" and size > 1):
        points = at * (length - 1) / max(size - 1, 1)
    elif mode == "ALIGN_CORNERS":
        points = at + (length - 1) / 2
    elif mode == "DEFAULT":
        points = at * length / size
    elif mode == "OFFSET_CORNERS":
        points = (at + 0.5) * max(1, length - 1) / size
    else:  # UNALIGN_CORNERS: pixel centres on pixel centres
        points = (at + 0.5) * length / size - 0.5
    points = points.clamp(0, length - 1)
    low = points.floor().long()
    weight = (points - low).float().reshape([-1 if d == dim % x.ndim else 1 for d in range(x.ndim)])
    return torch.lerp(x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=length - 1)), weight)


def resize_bilinear(
    x: Tensor, target_size_height: Tensor, target_size_width: Tensor, sampling_mode: str = "DEFAULT"
) -> Tensor:
    rows = linear_resize(x, -2, int(target_size_height), sampling_mode)
    return linear_resize(rows, -1, int(target_size_width), sampling_mode)


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor,
    scale_factor_width: Tensor,
    align_corners: Tensor,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:
    centres = not bool(align_corners) if half_pixel_centers is None else bool(half_pixel_centers)
    mode = "STRICT_ALIGN_CORNERS" if bool(align_corners) else "UNALIGN_CORNERS" if centres else "DEFAULT"
    height, width = scaled(x, scale_factor_height, scale_factor_width)
    return linear_resize(linear_resize(x, -2, height, mode), -1, width, mode)


def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Tensor,
    coordinates_mode: str,
    align_corners: Tensor,
) -> Tensor:
    """PyTorch's grid_sample, as far as it goes: it mirrors at pixels' centres with `align_corners`, else at edges."""
    corners = bool(align_corners)
    mirrored = "reflection" if corners else "symmetric"
    modes = {"constant": "zeros", "border": "border", mirrored: "reflection"}
    is_zero = padding_mode != "constant" or float(padding_value) == 0
    if coordinates_mode != "normalized_minus_one_to_one" or padding_mode not in modes or not is_zero:
        raise ValueError(
            f"resample with {coordinates_mode}, {padding_mode} of {float(padding_value):g} and align_corners {corners} "
            "has no reference in PyTorch"
        )
    return F.grid_sample(x, coordinates, sampling_mode, modes[padding_mode], corners)


def matmul(x: Tensor, y: Tensor, transpose_x: Tensor, transpose_y: Tensor) -> Tensor:
    return torch.matmul(x.mT if bool(transpose_x) else x, y.mT if bool(transpose_y) else y)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def einsum(values: list[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask)


OPS: dict[str, Op] = {
    "clamped_relu": lambda x, alpha, beta: torch.minimum(torch.where(x >= 0, x, alpha * x), beta),
    "elu": elu,
    "gelu": gelu,
    "leaky_relu": lambda x, alpha: torch.where(x >= 0, x, alpha * x),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "prelu": prelu,
    "relu": unary(torch.relu),
    "relu6": unary(F.relu6),
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid": unary(torch.sigmoid),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "silu": unary(F.silu),
    "softmax": softmax,
    "softplus": unary(F.softplus),
    "softplus_parametric": softplus_parametric,
    "softsign": unary(F.softsign),
    "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, 0),
    "avg_pool": avg_pool,
    "max_pool": max_pool,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "resize_bilinear": resize_bilinear,
    "resample": resample,
    "crop": crop,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
}
