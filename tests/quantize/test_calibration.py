"""calibrate: portable noise of its own, in batches."""

import numpy as np
import pytest

from edgegen.errors import UsageError
from edgegen.noise import normal
from edgegen.program.inputs import CALIBRATION_FIRST, InputSource, example_inputs
from edgegen.quantize.calibration import calibration_batches, enough_samples, fitting_batch
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=4, num_classes=3)


def test_batches_hold_all_samples_and_classes_in_turn() -> None:
    batches = calibration_batches(InputSource(SIGNATURE, 5), samples=10, batch=4)
    assert [len(batch["sample"]) for batch in batches] == [4, 4, 2]
    assert [list(batch) for batch in batches] == [["sample", "class_labels"]] * 3
    samples = np.concatenate([batch["sample"] for batch in batches])
    assert np.array_equal(samples, normal(5, CALIBRATION_FIRST, 10, (1, 4, 4)))
    labels = np.concatenate([batch["class_labels"] for batch in batches])
    assert (labels.dtype, labels.tolist()) == (np.int64, [(CALIBRATION_FIRST + i) % 3 for i in range(10)])


def test_the_batch_size_does_not_change_the_samples() -> None:
    one = calibration_batches(InputSource(SIGNATURE, 5), samples=6, batch=1)
    assert np.array_equal(
        np.concatenate([batch["sample"] for batch in one]),
        calibration_batches(InputSource(SIGNATURE, 5), samples=6, batch=6)[0]["sample"],
    )


def test_parity_never_runs_on_the_calibration_set() -> None:
    calibration = calibration_batches(InputSource(SIGNATURE, 5), samples=8, batch=8)[0]["sample"]
    parity = example_inputs(SIGNATURE, 8, 5)["sample"]
    assert not np.isin(calibration, parity).any()


def test_unconditional_generators_get_noise_only() -> None:
    batches = calibration_batches(InputSource(Signature.of(channels=1, size=4, num_classes=0), 0), samples=1, batch=1)
    assert [list(batch) for batch in batches] == [["sample"]]


def test_no_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="calibration needs at least 1 sample, found 0"):
        calibration_batches(InputSource(SIGNATURE, 0), samples=0, batch=1)


@pytest.mark.parametrize(("channels", "size", "samples", "batch"), [(1, 8, 1024, 32), (3, 32, 64, 21), (4, 128, 64, 1)])
def test_as_many_as_settle_the_ranges_and_few_of_large_pictures_at_once(
    channels: int, size: int, samples: int, batch: int
) -> None:
    signature = Signature.of(channels=channels, size=size, num_classes=0)
    assert enough_samples(signature) == samples
    assert fitting_batch(signature) == batch
