"""Every op of mil_scatter against PyTorch and numpy in float64: scatters and the update of a slice."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgegen.exporters.coreml.evaluator import scatter

pytest.importorskip("coremltools")

from coremltools.converters.mil import Builder as mb

Array = NDArray[Any]
REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}  # MIL's modes, torch's words


class Case(NamedTuple):
    """`body` builds the op on the inputs; `reference` computes it from the same inputs as float64 or int64 arrays."""

    body: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: tuple[Array, ...]


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def along(x: Array, indices: Array, updates: Array, *, reduce: str | None = None) -> Array:
    tensors = torch.from_numpy(x), torch.from_numpy(indices), torch.from_numpy(updates)
    if reduce is None:
        return tensors[0].scatter(1, tensors[1], tensors[2]).numpy()
    return tensors[0].scatter_reduce(1, tensors[1], tensors[2], reduce).numpy()


def put(x: Array, places: Any, updates: Array, sign: int = 0) -> Array:
    out = x.copy()
    if sign:
        np.add.at(out, places, sign * updates)
    else:
        out[places] = updates
    return out


def cases() -> Iterator[tuple[str, Case]]:
    x, rows, u = noise(3, 4, 2), noise(3, 2, 2, seed=1), noise(3, 2, 2, seed=2)
    twice = np.int32([1, 1])
    for mode, sign in (("add", 1), ("sub", -1)):
        yield (
            f"scatter.{mode}",
            Case(
                lambda x, u, mode=mode: mb.scatter(data=x, indices=twice, updates=u, axis=1, mode=mode),
                lambda x, u, sign=sign: put(x, (slice(None), twice), u, sign),
                (x, rows),
            ),
        )
    yield (
        "scatter",
        Case(
            lambda x, u: mb.scatter(data=x, indices=np.int32([3, 0]), updates=u, axis=1, mode="update"),
            lambda x, u: put(x, (slice(None), [3, 0]), u),
            (x, rows),
        ),
    )
    at = np.random.default_rng(3).permuted(np.tile(np.arange(4, dtype=np.int32)[None, :, None], (3, 1, 2)), axis=1)[
        :, :2
    ]
    yield (
        "scatter_along_axis",
        Case(
            lambda x, u: mb.scatter_along_axis(data=x, indices=at, updates=u, axis=1, mode="update"),
            lambda x, u: along(x, at.astype(np.int64), u),
            (x, u),
        ),
    )
    for mode, word in REDUCTIONS.items():
        yield (
            f"scatter_along_axis.{mode}",
            Case(
                lambda x, u, mode=mode: mb.scatter_along_axis(data=x, indices=at // 2, updates=u, axis=1, mode=mode),
                lambda x, u, word=word: along(x, (at // 2).astype(np.int64), u, reduce=word),
                (x, u),
            ),
        )
    pairs = np.int32([[0, 1], [2, 3], [2, 3]])
    yield (
        "scatter_nd.add",
        Case(
            lambda x, u: mb.scatter_nd(data=x, indices=pairs, updates=u, mode="add"),
            lambda x, u: put(x, (pairs[:, 0], pairs[:, 1]), u, 1),
            (x, noise(3, 2, seed=4)),
        ),
    )
    yield (
        "scatter_nd",
        Case(
            lambda x, u: mb.scatter_nd(data=x, indices=pairs[:2], updates=u, mode="update"),
            lambda x, u: put(x, (pairs[:2, 0], pairs[:2, 1]), u),
            (x, noise(2, 2, seed=5)),
        ),
    )


def updates() -> Iterator[tuple[str, Case]]:
    x = noise(3, 5, 2)
    yield (
        "slice_update",
        Case(
            lambda x, u: mb.slice_update(x=x, update=u, begin=[0, 1, 0], end=[2, 5, 2], stride=[1, 2, 1]),
            lambda x, u: put(x, (slice(0, 2), slice(1, 5, 2)), u),
            (x, noise(2, 2, 2, seed=1)),
        ),
    )
    yield (
        "slice_update.masks",
        Case(
            lambda x, u: mb.slice_update(
                x=x,
                update=u,
                begin=[1, 2, 0],
                end=[0, 0, 1],
                begin_mask=[False, False, True],
                end_mask=[False, True, False],
                squeeze_mask=[True, False, False],
            ),
            lambda x, u: put(x, (1, slice(2, None), slice(0, 1)), u),
            (x, noise(3, 1, seed=2)),
        ),
    )


ALL = {"iOS17": dict(cases()), "iOS18": dict(updates())}


@pytest.mark.parametrize("target", ALL)
def test_every_scatter(target: str, evaluate: Callable[..., Any], compare: Callable[..., None]) -> None:
    results = evaluate(ALL[target], target=target)
    for name, case in ALL[target].items():
        compare(results.values[name], case)


def test_no_op_is_without_a_case() -> None:
    assert {name.partition(".")[0] for table in ALL.values() for name in table} == set(scatter.OPS)


def test_division_and_one_slice() -> None:
    """What the builder would fold or refuse: `div`, and an index without dimensions."""
    x = torch.arange(6.0).reshape(2, 3)
    divided = scatter.scatter(x, torch.tensor([2]), torch.full((2, 1), 2.0), torch.tensor(1), "div")
    assert divided.tolist() == [[0, 1, 1], [3, 4, 2.5]]
    single = scatter.scatter(x, torch.tensor(0), torch.zeros(3), torch.tensor(0), "update")
    assert single.tolist() == [[0, 0, 0], [3, 4, 5]]
