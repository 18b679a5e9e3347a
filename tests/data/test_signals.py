"""Signals from a .npz: what is read, what is refused and how; and the oscillations, whose statistics are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import hilbert, periodogram

from edgegen.data import load, oscillations, split
from edgegen.errors import DataError
from edgegen.formats.signal_units import UNITS, SignalUnits


def write(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "set.npz", **arrays)
    return folder


def some(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape)


def test_signals_are_read_with_labels_names_and_sample_rate(tmp_path: Path) -> None:
    signals = some(6, 2, 32).astype(np.float32)
    write(
        tmp_path, signals=signals, labels=[0, 1, 1, 0, 1, 0], sample_rate=250, class_names=["normal", "early"], other=1
    )
    read = load("set.npz", base=tmp_path)
    np.testing.assert_array_equal(read.images, signals)
    assert read.are_signals
    assert (read.classes, read.sample_rate_hz) == (("normal", "early"), 250.0)
    train, heldout = split(read, holdout=0.5, seed=0)
    assert (len(train), len(heldout), heldout.sample_rate_hz) == (2, 4, 250.0)


def test_one_channel_needs_no_axis_and_whole_numbers_are_numbers(tmp_path: Path) -> None:
    pulses = (1000 * some(4, 20)).astype(np.int16)
    write(tmp_path, train_signals=pulses, train_labels=list("abab"), test_signals=pulses[:2], test_labels=["b", "a"])
    read = load("set.npz", base=tmp_path)
    np.testing.assert_array_equal(read.images[:, 0], pulses)
    assert read.heldout is not None
    assert read.heldout.labels is not None
    assert read.heldout.labels.tolist() == [1, 0]


NAN = some(5, 2, 32)
NAN[3, 1, 7] = np.nan
CONSTANT = some(5, 2, 32)
CONSTANT[:, 1] = 3.5
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "one axis": ({"signals": some(40)}, r"shape \(40,\); needed: \(n, channels, length\), or \(n, length\)"),
    "four axes": ({"signals": some(5, 2, 4, 8)}, r"shape \(5, 2, 4, 8\); needed: \(n, channels, length\)"),
    "NaN": ({"signals": NAN}, r"1 of 5 signals hold values that are not finite .*, signal 3 the first: fill or leave"),
    "constant channel": ({"signals": CONSTANT}, r"channel 1 is 3.5 in all signals; .*: leave it out"),
    "too short": ({"signals": some(5, 2, 8)}, r"signals of 8 values; 16 is the least"),
    "length first": ({"signals": some(5, 32, 2)}, r"signals of 2 values; .* Needed: x.transpose\(0, 2, 1\)"),
    "a single signal": ({"signals": some(1, 2, 32)}, r"1 signal\(s\); at least 2 are needed"),
    "complex": ({"signals": some(5, 2, 32) + 1j}, r"signals are complex128; needed: real numbers"),
    "negative label": (
        {"signals": some(5, 2, 32), "labels": [0, 1, -1, 0, 1]},
        r"label -1 of signal 2 is negative; labels count from 0",
    ),
    "label out of range": (
        {"signals": some(5, 2, 32), "labels": [0, 1, 2, 0, 1], "class_names": ["a", "b"]},
        r"label 2 of signal 2 has no name; there are 2 names, for 0 to 1",
    ),
    "too few labels": (
        {"signals": some(5, 2, 32), "labels": [0, 1]},
        r"2 labels for 5 signals; there must be one label for each",
    ),
    "sample rate": ({"signals": some(5, 2, 32), "sample_rate": 0}, r"sample_rate is 0.0; needed: .* above 0"),
    "sample rates": ({"signals": some(5, 2, 32), "sample_rate": [8, 8]}, r"'sample_rate' is int64 \(2,\); needed: one"),
    "names": ({"signals": some(5, 2, 32), "class_names": [1, 2]}, r"'class_names' is int64 \(2,\); needed: texts"),
    "lengths": (
        {"train_signals": some(5, 2, 32), "test_signals": some(5, 2, 16)},
        r"signals differ in \(channels, length\): \(2, 32\) in the training part, \(2, 16\) in the test part",
    ),
    "signals as images": ({"x_train": some(5, 2, 32)}, r"float64 .* if these are signals .*, save them as 'signals'"),
    "other names": ({"waves": some(5, 2, 32)}, r"found waves; known: .*; of signals: train_signals .*, signals"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_signals_get_one_error_that_says_what_to_do(name: str, tmp_path: Path) -> None:
    arrays, message = BAD[name]
    write(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        load("set.npz", base=tmp_path)


def test_units_take_each_channel_to_its_range_and_back() -> None:
    signals = np.stack([some(40, 64) * 1e5 + 3e6, some(40, 64) * 1e-4], axis=1)
    units = SignalUnits.spanning(signals, sample_rate_hz=None)
    normalised = units.normalised(signals)
    np.testing.assert_allclose(normalised.min(axis=(0, 2)), -1, atol=1e-6)
    np.testing.assert_allclose(normalised.max(axis=(0, 2)), 1, atol=1e-6)
    spans = np.ptp(signals, axis=(0, 2))
    error = np.abs(units.restored(normalised) - signals).max(axis=(0, 2))
    assert (error <= 1e-5 * spans).all(), "also of a large offset, to the digits of a float32"
    assert SignalUnits.of_record({UNITS: units.to_dict()}, channels=2, where="a") == units


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"offset": [0.0], "scale": [1.0]}, "units are of 1 channels, and the signals have 2"),
        ({"offset": [0.0, 0.0], "scale": ["a", 1.0]}, r"units.scale.0: Input should be a valid number"),
    ],
)
def test_damaged_units_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SignalUnits.of_record({UNITS: values}, channels=2, where="manifest.json")
    assert SignalUnits.of_record({}, channels=2, where="manifest.json") is None


def test_oscillations_have_the_statistics_that_they_are_said_to_have() -> None:
    read = oscillations.load()
    q, v = np.moveaxis(read.images, 1, 0)
    assert read.labels is not None
    frequencies, power = periodogram(q, fs=read.sample_rate_hz, nfft=4096)
    peaks = frequencies[power.argmax(axis=1)]
    for label, name in enumerate(read.classes):
        low, high = oscillations.FREQUENCIES_HZ[name]
        of_class = peaks[read.labels == label]
        assert low - 0.3 < of_class.min() < of_class.max() < high + 0.3, "a short window moves a peak a little"
        assert of_class.mean() == pytest.approx((low + high) / 2, abs=0.06)
    # v is the derivative of q: central differences of a sine of w are sin(w h) / (w h) of it, 0.985 or more here.
    slope = (q[:, 2:] - q[:, :-2]) * read.sample_rate_hz / 2
    slow = read.labels == 0
    np.testing.assert_allclose(slope[slow], v[slow, 1:-1], atol=0.012 * np.abs(v[slow]).max())
    envelope = np.log(np.abs(hilbert(q))[:, 24:-24]).mean(axis=0)
    assert np.polyfit(np.arange(len(envelope)), envelope, 1)[0] < 0, "the vibrations die away"
