"""Inputs that are drawn, and those that a user gave."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgegen.noise import normal
from edgegen.program.inputs import CALIBRATION_FIRST, InputSource, RealInputs, samples_of
from edgegen.types import Signature, TensorSpec

NOISE = TensorSpec("sample", ("batch_size", 1, 4, 4), "float32", "noise")
PHOTO = TensorSpec("photo", ("batch_size", 3, 64, 96), "float32", "image", 0.0, 255.0)
OUT = TensorSpec("out_sample", ("batch_size", 3, 64, 96), "float32", "image", 0.0, 255.0)


def photos(count: int, first: int = 0) -> NDArray[np.float32]:
    return samples_of(Signature((PHOTO,), (OUT,)), range(first, first + count), 7)["photo"]


def test_synthetic_images_have_the_statistics_of_photographs() -> None:
    images = photos(32).astype(np.float64) / 255
    # Of photographs of this size, neighbouring pixels differ by 0.02 to 0.08 of the range; white noise by 0.27.
    assert 0.02 < np.abs(np.diff(images, axis=3)).mean() < 0.09
    assert images.min() == 0
    assert images.max() == 1
    means = images.mean(axis=(1, 2, 3))
    assert means.std() > 0.03  # some are dark, some bright
    assert np.corrcoef(images[:, 0].ravel(), images[:, 1].ravel())[0, 1] > 0.7
    spectrum = (np.abs(np.fft.rfft(images - images.mean(axis=3, keepdims=True), axis=3)) ** 2).mean(axis=(0, 1, 2))
    frequencies = np.arange(2, 33)
    slope = np.polyfit(np.log(frequencies), np.log(spectrum[frequencies]), 1)[0]
    assert -2.6 < slope < -1.3  # power; 1/f of the amplitude is -2


def test_a_synthetic_image_depends_on_its_number_alone() -> None:
    np.testing.assert_array_equal(photos(8)[5:7], photos(2, first=5))
    assert not np.array_equal(photos(1), photos(1, first=1))


def test_noise_is_still_portable_noise() -> None:
    np.testing.assert_array_equal(
        samples_of(Signature((NOISE,), (OUT,)), range(3), 5)["sample"], normal(5, 0, 3, (1, 4, 4))
    )


@pytest.fixture
def real() -> RealInputs:
    return RealInputs({"photo": photos(6)}, {"photo": photos(4, first=6)})


def test_comparisons_and_calibration_never_share_a_real_sample(real: RealInputs) -> None:
    source = InputSource(Signature((PHOTO,), (OUT,)), 0, real)
    compared = source.examples(64)["photo"]
    np.testing.assert_array_equal(compared, real.verification["photo"])  # each once, however many are asked for
    assert source.calibration_count(1000) == 6
    calibration = source.samples(range(CALIBRATION_FIRST, CALIBRATION_FIRST + 8))["photo"]
    np.testing.assert_array_equal(calibration, real.calibration["photo"][[0, 1, 2, 3, 4, 5, 0, 1]])
    assert not any(np.array_equal(a, b) for a in compared for b in calibration)


def test_real_conditions_go_with_fresh_noise(real: RealInputs) -> None:
    source = InputSource(Signature((NOISE, PHOTO), (OUT,)), 3, real)
    inputs = source.examples(8)
    np.testing.assert_array_equal(inputs["sample"], normal(3, 0, 8, (1, 4, 4)))
    np.testing.assert_array_equal(inputs["photo"][:4], inputs["photo"][4:])
    assert source.calibration_count(1000) == 1000
    assert source.origin == "real"


def test_what_the_user_gave_is_not_drawn_as_well(real: RealInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: object) -> None:
        raise AssertionError("an image was drawn that nobody uses")

    monkeypatch.setattr("edgegen.program.inputs.natural_images", drawn)
    assert InputSource(Signature((NOISE, PHOTO), (OUT,)), 0, real).examples(4).keys() == {"sample", "photo"}


def test_the_origin_says_what_a_comparison_is_worth(real: RealInputs) -> None:
    features = TensorSpec("style", ("batch_size", 8), "float32", "features")
    assert InputSource(Signature((NOISE,), (OUT,)), 0).origin == "noise"
    assert InputSource(Signature((NOISE, PHOTO), (OUT,)), 0).origin == "synthetic"
    assert InputSource(Signature((PHOTO, features), (OUT,)), 0, real).synthetic == ("style",)
    assert InputSource(Signature((NOISE,), (OUT,)), 0, unstated=("sample",)).origin == "synthetic"  # it may be an image


def test_real_images_are_cut_or_mirrored_to_another_size(real: RealInputs) -> None:
    source = InputSource(Signature((PHOTO,), (OUT,)), 0, real).resized(32, 192)
    (image, *_) = source.examples(1)["photo"]
    original = real.verification["photo"][0][:, :32]
    np.testing.assert_array_equal(image[:, :, :96], original)
    np.testing.assert_array_equal(image[:, :, 96:], original[:, :, ::-1])
