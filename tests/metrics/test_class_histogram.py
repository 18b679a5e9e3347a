"""The histogram of classes: known values, and growth with the classes that are missing."""

import numpy as np
import pytest
from damaged_digits import digits, without_classes

from edgegen.errors import DataError
from edgegen.metrics import class_distance, class_shares


def test_total_variation_of_known_histograms() -> None:
    shares = class_shares(np.array([0, 0, 1, 3]), 4)
    assert shares.tolist() == [0.5, 0.25, 0, 0.25]
    assert class_distance(shares, shares) == 0
    assert class_distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    assert class_distance(np.full(4, 0.25), shares) == pytest.approx(0.25)  # one of four would have to change
    with pytest.raises(DataError, match="no image has a class"):
        class_shares(np.array([], np.int64), 3)


def test_it_is_the_share_of_the_classes_that_are_missing() -> None:
    _, _, images, labels = digits()
    wanted = class_shares(labels.numpy(), 10)
    for missing in (1, 2, 5, 9):
        kept = without_classes(images, labels, missing)[1]
        lost = float(wanted[10 - missing :].sum())
        assert class_distance(wanted, class_shares(kept.numpy(), 10)) == pytest.approx(lost, abs=0.03)
