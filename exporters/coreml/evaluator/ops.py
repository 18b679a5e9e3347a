"""Core ML (MIL) ops in torch: arithmetic, comparisons, reductions and shapes.

Every function takes the op's inputs under their MIL names. Numbers arrive as tensors (float32, int32 or bool), also
where MIL calls them attributes; strings as str; a tuple input as a list. The evaluator casts and rounds the
results. They follow the MIL reference of coremltools 9.0 (ops of iOS 15 to 18).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Op = Callable[..., Tensor | tuple[Tensor, ...]]


def ints(tensor: Tensor) -> list[int]:
    """The values of an integer tensor of any rank, flat."""
    return [int(value) for value in tensor.flatten().tolist()]


def unary(function: Callable[[Tensor], Tensor]) -> Op:
    return lambda x: function(x)


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    return lambda x, y: function(x, y)


def reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Op:
    """A reduce_ op: over `axes`, all of them where absent."""

    def reduce(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
        dims = list(range(x.ndim)) if axes is None else ints(axes)
        return function(x, dims, keep_dims is not None and bool(keep_dims))

    return reduce


def _prod(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((dim % x.ndim for dim in dims), reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def argument(function: Callable[..., Tensor]) -> Op:
    def reduce(x: Tensor, axis: Tensor, keep_dims: Tensor | None = None, output_dtype: str | None = None) -> Tensor:
        return function(x, dim=int(axis), keepdim=keep_dims is not None and bool(keep_dims))

    return reduce


def cast(x: Tensor, dtype: str) -> Tensor:
    """The evaluator casts every result to its declared type; nothing is left to do."""
    return x


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond.bool(), a, b)


def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, alpha), beta)


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """0 keeps the dimension at that place, -1 takes what is left."""
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(ints(shape))])


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    places = ints(axes)
    rank = x.ndim + len(places)
    for axis in sorted(axis % rank for axis in places):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(ints(axes))


def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(ints(perm))


def concat(values: list[Tensor], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    """Single numbers, as coremltools puts open sizes together, count as vectors of one."""
    values = [value.reshape(1) if value.ndim == 0 else value for value in values]
    if interleave is not None and bool(interleave):
        stacked = torch.stack(values, dim=int(axis) % values[0].ndim + 1)
        return stacked.flatten(int(axis) % values[0].ndim, int(axis) % values[0].ndim + 1)
    return torch.cat(values, dim=int(axis))


def split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    dim = int(axis)
    if split_sizes is not None:
        return tuple(torch.split(x, ints(split_sizes), dim=dim))
    assert num_splits is not None
    return tuple(torch.split(x, x.shape[dim] // int(num_splits), dim=dim))


def stack(values: list[Tensor], axis: Tensor) -> Tensor:
    return torch.stack(values, dim=int(axis))


def tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.repeat(ints(reps))


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None) -> Tensor:
    """`pad` goes through the last dimensions front to back, torch's F.pad back to front."""
    pairs = [[int(amount) for amount in pair] for pair in pad.reshape(-1, 2).tolist()]
    while pairs and pairs[0] == [0, 0]:
        pairs.pop(0)
    flat = [amount for pair in reversed(pairs) for amount in pair]
    if mode == "constant" or not flat:
        return F.pad(x, flat, value=0.0 if constant_val is None else constant_val.item())
    # F.pad reflects and replicates only behind exactly two dimensions.
    kept = x.shape[: x.ndim - len(pairs)]
    out = F.pad(x.reshape(1, -1, *x.shape[len(kept) :]), flat, mode=mode)
    return out.reshape(*kept, *out.shape[2:])


def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


def fill(shape: Tensor, value: Tensor) -> Tensor:
    return value.expand(ints(shape)).clone()


def fill_like(ref_tensor: Tensor, value: Tensor) -> Tensor:
    return value.expand(ref_tensor.shape).clone()


def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), end.item(), step.item())


def cumsum(x: Tensor, axis: Tensor, exclusive: Tensor, reverse: Tensor) -> Tensor:
    dim = int(axis)
    flipped = x.flip(dim) if bool(reverse) else x
    total = flipped.cumsum(dim) - (flipped if bool(exclusive) else 0)
    return total.flip(dim) if bool(reverse) else total


def band_part(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Keep `lower` diagonals below and `upper` above the main one; a negative number keeps all."""
    low = x if int(lower) < 0 else x.triu(-int(lower))
    return low if int(upper) < 0 else low.tril(int(upper))


def one_hot(indices: Tensor, one_hot_vector_size: Tensor, axis: Tensor, on_value: Tensor, off_value: Tensor) -> Tensor:
    """`on_value` where the position along the new `axis` is the index; an index out of range has none."""
    hot = indices.unsqueeze(-1) == torch.arange(int(one_hot_vector_size))
    return torch.where(hot, on_value, off_value).movedim(-1, int(axis))


def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: Tensor | None = None
) -> Tensor:
    """clip(round(input / scale) + zero_point), per tensor or along `axis`."""
    low, high = (-128, 127) if output_dtype == "int8" else (0, 255)
    steps = torch.round(input / _along(scale, input, axis))
    return (steps + (0 if zero_point is None else _along(zero_point, input, axis))).clamp(low, high)


def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """scale * (input - zero_point), per tensor or along `axis`."""
    centred = input - (0 if zero_point is None else _along(zero_point, input, axis))
    return centred * _along(scale, input, axis)


def _along(values: Tensor, like: Tensor, axis: Tensor | None) -> Tensor:
    if values.ndim == 0 or axis is None:
        return values
    return values.reshape([-1 if dim == int(axis) % like.ndim else 1 for dim in range(like.ndim)])


UNARY = "abs acos asin atan atanh ceil cos cosh erf exp exp2 floor round sign sin sinh sqrt square tan tanh"
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": torch.true_divide,
    "sub": torch.sub,
}
REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "reduce_l1_norm": lambda x, dims, keep: x.abs().sum(dims, keepdim=keep),
    "reduce_l2_norm": lambda x, dims, keep: x.square().sum(dims, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, dims, keep: x.sum(dims, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, dims, keep: torch.logsumexp(x, dims, keepdim=keep),
    "reduce_max": lambda x, dims, keep: x.amax(dims, keepdim=keep),
    "reduce_mean": lambda x, dims, keep: x.mean(dims, keepdim=keep),
    "reduce_min": lambda x, dims, keep: x.amin(dims, keepdim=keep),
    "reduce_prod": _prod,
    "reduce_sum": lambda x, dims, keep: x.sum(dims, keepdim=keep),
    "reduce_sum_square": lambda x, dims, keep: x.square().sum(dims, keepdim=keep),
}
OPS: dict[str, Op] = {
    **{name: unary(getattr(torch, name)) for name in UNARY.split()},
    **{name: binary(function) for name, function in BINARY.items()},
    **{name: reduction(function) for name, function in REDUCTIONS.items()},
    "reduce_argmax": argument(torch.argmax),
    "reduce_argmin": argument(torch.argmin),
    "identity": unary(lambda x: x),
    "logical_not": unary(torch.logical_not),
    "inverse": lambda x, epsilon: 1 / (x + epsilon),
    "log": lambda x, epsilon: torch.log(x + epsilon),
    "rsqrt": lambda x, epsilon: torch.rsqrt(x + epsilon),
    "threshold": lambda x, alpha: torch.maximum(x, alpha),
    "band_part": band_part,
    "cast": cast,
    "clip": clip,
    "concat": concat,
    "cumsum": cumsum,
    "dequantize": dequantize,
    "expand_dims": expand_dims,
    "fill": fill,
    "fill_like": fill_like,
    "one_hot": one_hot,
    "pad": pad,
    "quantize": quantize,
    "range_1d": range_1d,
    "reshape": reshape,
    "select": select,
    "shape": shape,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}
