"""parity: the decibels against their formula, and every way in which an artifact can fail."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgegen.types import Parity
from edgegen.verification import parity

REFERENCE = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4)
INPUTS = {"sample": REFERENCE}


@dataclass(frozen=True)
class Fixed:
    """A session that answers the same whatever it is asked."""

    outputs: dict[str, NDArray[Any]]
    method: str = "a table"

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.outputs


@pytest.mark.parametrize("error", [1e-1, 1e-3, 1e-5])
def test_a_constant_error_has_its_decibels(error: float) -> None:
    reference = REFERENCE.astype(np.float64)
    assert parity.psnr_db(reference, reference + error) == pytest.approx(20 * math.log10(2 / error))
    assert parity.psnr_db(reference, reference + error, data_range=1.0) == pytest.approx(20 * math.log10(1 / error))


def test_equal_arrays_have_a_finite_figure() -> None:
    record = parity.check(Fixed({"out_sample": REFERENCE.copy()}), INPUTS, REFERENCE, floor_db=80.0)
    assert (record.status, record.psnr_db, record.max_abs_error) == ("ok", parity.CAP_DB, 0.0)
    assert json.loads(json.dumps(record.to_dict(), allow_nan=False))["samples"] == 2


def test_below_the_floor_is_failed_with_its_figures() -> None:
    record = parity.check(Fixed({"out_sample": REFERENCE + np.float32(0.02)}), INPUTS, REFERENCE, floor_db=40.5)
    assert record.status == "failed"
    assert record.psnr_db == pytest.approx(40.0, abs=1e-3)
    assert record.max_abs_error == pytest.approx(0.02, abs=1e-6)
    assert record.reason == "40.0 dB is below the floor of 40.5 dB"
    assert record.method == "a table"


def broken(value: float) -> NDArray[np.float32]:
    got = REFERENCE.copy()
    got[0, 0, 0, :3] = value
    return got


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"out_sample": broken(math.nan)}, "3 of 32 values of 'out_sample' are not finite"),
        ({"out_sample": broken(-math.inf)}, "3 of 32 values of 'out_sample' are not finite"),
        ({"out_sample": REFERENCE[:1]}, "'out_sample' has shape (1, 1, 4, 4), PyTorch gives (2, 1, 4, 4)"),
        ({"image": REFERENCE}, "no output 'out_sample'; there are: image"),
    ],
)
def test_an_unusable_output_is_failed_with_its_reason(outputs: dict[str, NDArray[Any]], reason: str) -> None:
    record = parity.check(Fixed(outputs), INPUTS, REFERENCE, floor_db=20.0)
    assert (record.status, record.reason, record.psnr_db) == ("failed", reason, None)


def test_a_net_that_diverged_cannot_pass() -> None:
    reference = broken(math.nan)
    record = parity.check(Fixed({"out_sample": reference.copy()}), INPUTS, reference, floor_db=20.0)
    assert (record.status, record.reason) == ("failed", "PyTorch's own output is not finite")


def test_not_checked_is_never_ok() -> None:
    record = Parity.not_checked("no Mac at hand", 50.0)
    assert (record.status, record.reason, record.floor_db, record.psnr_db) == (
        "not checked",
        "no Mac at hand",
        50.0,
        None,
    )


def test_one_bad_image_of_ten_fails_although_the_mean_is_good() -> None:
    reference = np.zeros((20, 1, 4, 4), np.float32)
    outputs = reference.copy()
    outputs[3] = 0.02  # 40 dB, one of 20: 53 dB in the mean, 43 dB on the worst tenth
    record = parity.check(Fixed({"out_sample": outputs}), {"sample": reference}, reference, floor_db=50.0)
    assert record.status == "failed"
    assert record.psnr_db == pytest.approx(53.0, abs=0.02)
    assert record.worst_db == pytest.approx(40.0, abs=0.01)
    assert record.reason == "53.0 dB, and 43.0 dB on the worst tenth, is below the floor of 50.0 dB"
    assert parity.check(Fixed({"out_sample": outputs}), {"sample": reference}, reference, floor_db=42.0).status == "ok"
