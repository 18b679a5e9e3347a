"""Drawn inputs: whole numbers of all their range, scalars, and everything else as it was."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from edgegen.noise import normal
from edgegen.program.inputs import CALIBRATION_FIRST, example_inputs, samples_of
from edgegen.types import Role, Signature, TensorSpec


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (TensorSpec("out_sample", ("batch_size", 1), "float32", "signal"),))


def whole(low: float, high: float, *sizes: int, dtype: Any = "int64", role: Role = "features") -> TensorSpec:
    return TensorSpec("mask", ("batch_size", *sizes), dtype, role, low, high)


def drawn(spec: TensorSpec, count: int, seed: int = 0) -> NDArray[Any]:
    values = example_inputs(signature(spec), count, seed)["mask"]
    assert values.shape == (count, *spec.shape[1:])
    assert values.dtype == spec.dtype
    return values


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 1, "int64"), (-4, 5, "int32"), (0, 9, "uint8"), (0.5, 4.2, "int64")]
)
def test_whole_numbers_are_of_the_whole_range(low: float, high: float, dtype: str) -> None:
    values = drawn(whole(low, high, 30, dtype=dtype), 100)
    numbers = np.arange(np.ceil(low), np.floor(high) + 1)
    counts = np.array([(values == number).sum() for number in numbers])
    assert counts.sum() == values.size, "others are not drawn"
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_trial_of_two_samples_has_both_ends() -> None:
    values = drawn(whole(0, 49407, 77), 2)
    assert (values[0, 0], values[1, 0]) == (0, 49407)
    assert drawn(whole(0, 999), 2).tolist() == [0, 999]
    assert len(np.unique(drawn(whole(0, 999), 40))) > 30


def test_whole_numbers_depend_on_the_sample_alone() -> None:
    both = signature(TensorSpec("sample", ("batch_size", 2), "float32", "noise"), whole(0, 9, 6))
    many = samples_of(both, range(10), 3)
    assert np.array_equal(many["mask"][4:7], samples_of(both, range(4, 7), 3)["mask"])
    late = range(CALIBRATION_FIRST, CALIBRATION_FIRST + 50)
    assert set(np.unique(samples_of(both, late, 3)["mask"])) == set(range(10))
    np.testing.assert_array_equal(many["sample"], normal(3, 0, 10, (2,)))


def test_other_inputs_are_noise_as_before() -> None:
    spec = TensorSpec("mask", ("batch_size", 500), "float32", "features", 0.0, 1.0)
    np.testing.assert_allclose(drawn(spec, 3), np.clip(0.5 + normal(0, 0, 3, (500,)) / 4, 0, 1), rtol=1e-6)


def test_an_input_without_axes_is_one_number() -> None:
    inputs = example_inputs(
        signature(
            TensorSpec("sample", ("batch_size", 2), "float32", "noise"),
            TensorSpec("strength", (), "float32", "features", 0.0, 1.0),
            TensorSpec("level", (), "int64", "features", 3, 7),
        ),
        4,
        0,
    )
    assert {name: values.shape for name, values in inputs.items()} == {"sample": (4, 2), "strength": (), "level": ()}
    assert 0 <= inputs["strength"] <= 1
    assert inputs["level"] == 3
