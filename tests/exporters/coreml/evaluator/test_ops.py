"""Every op of ops.py and indexing.py against numpy in float64."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from edgegen.exporters.coreml.evaluator import indexing as indexing_ops
from edgegen.exporters.coreml.evaluator import ops

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


def op(name: str) -> Callable[..., Any]:
    """The MIL op `name` on its inputs x and y."""
    return lambda *inputs: getattr(mb, name)(**dict(zip("xy", inputs, strict=False)))


def elementwise() -> Iterator[tuple[str, Case]]:
    x, u, z = noise(2, 5) * 2, unit(2, 5), noise(2, 5, seed=1)
    numpy_names = {"acos": "arccos", "asin": "arcsin", "atan": "arctan", "atanh": "arctanh"}
    names = "abs acos asin atan atanh ceil cos cosh exp exp2 floor round sign sin sinh sqrt square tan tanh"
    for name in names.split(" "):
        inside = name in ("acos", "asin", "atanh", "sqrt", "tan")
        yield name, Case(op(name), getattr(np, numpy_names.get(name, name)), (u if inside else x,))
    yield "erf", Case(op("erf"), special.erf, (x,))
    yield "inverse", Case(lambda x: mb.inverse(x=x, epsilon=0.1), lambda x: 1 / (x + 0.1), (u,))
    yield "log", Case(lambda x: mb.log(x=x, epsilon=0.1), lambda x: np.log(x + 0.1), (u,))
    yield "rsqrt", Case(lambda x: mb.rsqrt(x=x, epsilon=0.1), lambda x: 1 / np.sqrt(x + 0.1), (u,))
    yield "clip", Case(lambda x: mb.clip(x=x, alpha=-0.5, beta=0.7), lambda x: np.clip(x, -0.5, 0.7), (x,))
    yield "threshold", Case(lambda x: mb.threshold(x=x, alpha=0.3), lambda x: np.maximum(x, 0.3), (x,))
    yield from binary(x, z)


def binary(x: Array, y: Array) -> Iterator[tuple[str, Case]]:
    functions: dict[str, Any] = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "real_div": np.divide,
        "floor_div": np.floor_divide,
        "mod": np.mod,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "equal": np.equal,
        "not_equal": np.not_equal,
        "greater": np.greater,
        "greater_equal": np.greater_equal,
        "less": np.less,
        "less_equal": np.less_equal,
    }
    x[0, 0] = y[0, 0]
    for name, function in functions.items():
        yield name, Case(op(name), function, (x, y))
    yield "pow", Case(op("pow"), np.power, (np.abs(x) + 0.1, y))
    integers = np.int32([7, -7, 5]), np.int32([2, 2, -3])
    for name, function in (("floor_div", np.floor_divide), ("mod", np.mod), ("add", np.add)):
        yield f"{name}.int", Case(op(name), function, integers)
    for name in ("logical_and", "logical_or", "logical_xor"):
        yield (
            name,
            Case(
                lambda x, y, name=name: getattr(mb, name)(x=mb.greater(x=x, y=0.0), y=mb.less(x=y, y=0.0)),
                lambda x, y, name=name: getattr(np, name)(x > 0, y < 0),
                (x, y),
            ),
        )
    yield "logical_not", Case(lambda x: mb.logical_not(x=mb.greater(x=x, y=0.0)), lambda x: ~(x > 0), (x,))
    yield (
        "select",
        Case(lambda x, y: mb.select(cond=mb.greater(x=x, y=0.0), a=x, b=y), lambda x, y: np.where(x > 0, x, y), (x, y)),
    )
    yield "identity", Case(op("identity"), lambda x: x, (x,))


def reductions() -> Iterator[tuple[str, Case]]:
    x = unit(2, 3, 4)
    functions: dict[str, Any] = {
        "reduce_sum": np.sum,
        "reduce_mean": np.mean,
        "reduce_max": np.max,
        "reduce_min": np.min,
        "reduce_prod": np.prod,
        "reduce_sum_square": lambda x, axis, keepdims: np.square(x).sum(axis, keepdims=keepdims),
        "reduce_l1_norm": lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims),
        "reduce_l2_norm": lambda x, axis, keepdims: np.sqrt(np.square(x).sum(axis, keepdims=keepdims)),
        "reduce_log_sum": lambda x, axis, keepdims: np.log(x.sum(axis, keepdims=keepdims)),
        "reduce_log_sum_exp": lambda x, axis, keepdims: special.logsumexp(x, axis, keepdims=keepdims),
    }
    for name, function in functions.items():
        for keep in (False, True):
            yield (
                f"{name}.{keep}",
                Case(
                    lambda x, name=name, keep=keep: getattr(mb, name)(x=x, axes=[0, -1], keep_dims=keep),
                    lambda x, function=function, keep=keep: function(x, axis=(0, 2), keepdims=keep),
                    (x,),
                ),
            )
    yield "reduce_sum.all", Case(lambda x: mb.reduce_sum(x=x, keep_dims=False), np.sum, (x,))
    for name in ("argmax", "argmin"):
        yield (
            f"reduce_{name}",
            Case(
                lambda x, name=name: getattr(mb, f"reduce_{name}")(x=x, axis=1, keep_dims=True),
                lambda x, name=name: getattr(np, name)(x, axis=1, keepdims=True),
                (x,),
            ),
        )


def shapes() -> Iterator[tuple[str, Case]]:
    x, y = noise(2, 3, 4), noise(2, 3, 4, seed=1)
    yield "reshape", Case(lambda x: mb.reshape(x=x, shape=[0, -1, 2]), lambda x: x.reshape(2, 6, 2), (x,))
    yield "expand_dims", Case(lambda x: mb.expand_dims(x=x, axes=[0, -1]), lambda x: x[None, ..., None], (x,))
    yield "squeeze", Case(lambda x: mb.squeeze(x=x, axes=[0, -1]), lambda x: x[0, ..., 0], (noise(1, 3, 4, 1),))
    yield "squeeze.all", Case(lambda x: mb.squeeze(x=x), np.squeeze, (noise(1, 3, 1),))
    yield "transpose", Case(lambda x: mb.transpose(x=x, perm=[2, 0, -2]), lambda x: x.transpose(2, 0, 1), (x,))
    yield "concat", Case(lambda x, y: mb.concat(values=[x, y], axis=-1), lambda *v: np.concatenate(v, -1), (x, y))
    yield (
        "concat.interleave",
        Case(
            lambda x, y: mb.concat(values=[x, y], axis=1, interleave=True),
            lambda x, y: np.stack([x, y], 2).reshape(2, 6, 4),
            (x, y),
        ),
    )
    yield "stack", Case(lambda x, y: mb.stack(values=[x, y], axis=1), lambda *v: np.stack(v, 1), (x, y))
    yield "split", Case(lambda x: mb.split(x=x, num_splits=2, axis=2), lambda x: np.split(x, 2, 2), (x,))
    yield "split.sizes", Case(lambda x: mb.split(x=x, split_sizes=[1, 2], axis=1), lambda x: (x[:, :1], x[:, 1:]), (x,))
    yield "tile", Case(lambda x: mb.tile(x=x, reps=[1, 2, 3]), lambda x: np.tile(x, (1, 2, 3)), (x,))
    yield "reverse", Case(lambda x: mb.reverse(x=x, axes=[1, -1]), lambda x: x[:, ::-1, ::-1], (x,))
    yield "reverse.all", Case(lambda x: mb.reverse(x=x), np.flip, (x,))
    yield "shape", Case(op("shape"), np.shape, (x,))
    yield "fill", Case(lambda x: mb.add(x=x, y=mb.fill(shape=[3, 4], value=2.0)), lambda x: x + 2, (x,))
    yield "fill_like", Case(lambda x: mb.fill_like(ref_tensor=x, value=2.0), lambda x: np.full_like(x, 2), (x,))
    yield (
        "range_1d",
        Case(
            lambda x: mb.range_1d(start=2, end=mb.squeeze(x=x), step=3),
            lambda x: np.arange(2, x[0], 3),
            (np.int32([9]),),
        ),
    )
    for before in (False, True):
        yield (
            f"cumsum.{before}",
            Case(
                lambda x, before=before: mb.cumsum(x=x, axis=1, exclusive=before, reverse=before),
                lambda x, before=before: np.cumsum(x[:, ::-1], 1)[:, ::-1] - x if before else np.cumsum(x, 1),
                (x,),
            ),
        )
    yield "band_part.lower", Case(lambda x: mb.band_part(x=x, lower=-1, upper=0), np.tril, (x,))
    yield "band_part.upper", Case(lambda x: mb.band_part(x=x, lower=1, upper=-1), lambda x: np.triu(x, -1), (x,))
    labels = np.array([2, 0, 3, 1], np.int32)
    for axis, place in ((-1, "last"), (0, "first")):
        yield (
            f"one_hot.{place}",
            Case(
                lambda x, axis=axis: mb.one_hot(
                    indices=x, one_hot_vector_size=4, axis=axis, on_value=2.0, off_value=-1.0
                ),
                lambda x, axis=axis: np.moveaxis(3.0 * np.eye(4)[x] - 1.0, -1, axis),
                (labels,),
            ),
        )
    modes = (("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge"))
    for mode, numpy_mode in modes:
        yield (
            f"pad.{mode}",
            Case(
                lambda x, mode=mode: mb.pad(x=x, pad=[1, 2, 2, 0], mode=mode),
                lambda x, mode=numpy_mode: np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 0)), mode),
                (noise(1, 2, 3, 4),),
            ),
        )
    yield (
        "pad.value",
        Case(
            lambda x: mb.pad(x=x, pad=[0, 0, 0, 0, 1, 0], mode="constant", constant_val=0.5),
            lambda x: np.pad(x, ((0, 0), (0, 0), (1, 0)), constant_values=0.5),
            (x,),
        ),
    )


def indexing() -> Iterator[tuple[str, Case]]:
    x, labels = noise(2, 3, 4), np.int32([[2, 0], [1, 1]])
    yield (
        "slice_by_index",
        Case(
            lambda x: mb.slice_by_index(x=x, begin=[0, 1, -1], end=[2, 3, -4], stride=[1, 1, -2]),
            lambda x: x[0:2, 1:3, -1:-4:-2],
            (x,),
        ),
    )
    yield (
        "slice_by_index.masks",
        Case(
            lambda x: mb.slice_by_index(
                x=x,
                begin=[-1, 9, 1],
                end=[0, 2, 0],
                begin_mask=[False, True, False],
                end_mask=[False, False, True],
                squeeze_mask=[True, False, False],
            ),
            lambda x: x[-1, :2, 1:],
            (x,),
        ),
    )
    yield (
        "slice_by_size",
        Case(lambda x: mb.slice_by_size(x=x, begin=[0, 1, 2], size=[2, 1, -1]), lambda x: x[:, 1:2, 2:], (x,)),
    )
    yield "gather", Case(lambda x, i: mb.gather(x=x, indices=i, axis=1), lambda x, i: np.take(x, i, 1), (x, labels))
    yield (
        "gather.batched",
        Case(
            lambda x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1),
            lambda x, i: np.stack([x[b][i[b]] for b in range(2)]),
            (x, labels),
        ),
    )
    yield (
        "gather.scalar",
        Case(lambda x, i: mb.gather(x=x, indices=mb.squeeze(x=i), axis=2), lambda x, i: x[:, :, 3], (x, np.int32([3]))),
    )
    # How coremltools takes the open sizes of a shape apart and puts them together again.
    yield (
        "concat.scalars",
        Case(
            lambda x: mb.concat(values=[mb.gather(x=x, indices=i, axis=0) for i in (2, 0)], axis=0),
            lambda x: x[[2, 0]],
            (noise(3),),
        ),
    )
    along = np.int32([[[0, 3, 1, 1], [2, 2, 2, 0], [1, 0, 0, 3]]] * 2)
    yield (
        "gather_along_axis",
        Case(
            lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=-1),
            lambda x, i: np.take_along_axis(x, i, -1),
            (x, along),
        ),
    )
    yield (
        "gather_nd",
        Case(
            lambda x, i: mb.gather_nd(x=x, indices=i), lambda x, i: x[i[:, 0], i[:, 1]], (x, np.int32([[1, 2], [0, 0]]))
        ),
    )
    yield (
        "gather_nd.batched",
        Case(
            lambda x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
            lambda x, i: np.stack([x[b][i[b, :, 0]] for b in range(2)]),
            (x, labels[..., None]),
        ),
    )
    for kind, values in (("int32", [-2, 1, 3]), ("bool", [-1, 1, 1]), ("int8", [-2, 1, 3])):
        floats = np.float32([-2.7, 1.2, 3.9])
        yield (
            f"cast.{kind}",
            Case(
                lambda x, kind=kind: mb.cast(x=mb.cast(x=x, dtype=kind), dtype="fp32"),
                lambda x, values=values, kind=kind: np.abs(values) if kind == "bool" else values,
                (floats,),
            ),
        )
    yield (
        "cast.uint16",
        Case(
            lambda x: mb.cast(x=mb.cast(x=x, dtype="uint16"), dtype="int32"),
            lambda x: x,
            (np.int32([0, 40_000, 65_535]),),
        ),
    )


def quantization() -> Iterator[tuple[str, Case]]:
    x, scale, zero = 30 * noise(2, 3, 4), np.float32([0.1, 0.2, 0.4]), np.uint8([100, 120, 140])

    def quantized(x: Any) -> Any:
        return mb.quantize(input=x, scale=scale, zero_point=zero, axis=1, output_dtype="uint8")

    def steps(x: Array) -> Array:
        return np.clip(np.round(x / scale[:, None]) + zero[:, None].astype(int), 0, 255)

    yield "quantize", Case(lambda x: mb.cast(x=quantized(x), dtype="fp32"), steps, (x,))
    yield (
        "dequantize",
        Case(
            lambda x: mb.dequantize(input=quantized(x), scale=scale, zero_point=zero, axis=1),
            lambda x: (steps(x) - zero[:, None].astype(int)) * scale[:, None],
            (x,),
        ),
    )
    yield (
        "dequantize.whole",
        Case(
            lambda x: mb.dequantize(input=mb.quantize(input=x, scale=0.5, output_dtype="int8"), scale=0.5),
            lambda x: np.clip(np.round(x / 0.5), -128, 127) * 0.5,
            (x,),
        ),
    )


GROUPS = (elementwise, reductions, shapes, indexing, quantization)
CASES = {name: case for group in GROUPS for name, case in group()}


@pytest.fixture(scope="module")
def results(evaluate: Callable[..., Any]) -> Any:
    return evaluate(CASES)


@pytest.mark.parametrize("name", CASES)
def test_op(name: str, results: Any, compare: Callable[..., None]) -> None:
    assert name.split(".")[0] in results.kinds, "coremltools wrote the program without this op"
    compare(results.values[name], CASES[name])


def test_every_op_has_a_case() -> None:
    assert {name.split(".")[0] for name in CASES} == {*ops.OPS, *indexing_ops.OPS}
