"""The record, the split and the conversions: exact identities, and every refusal by its words."""

import numpy as np
import pytest
import torch

from edgegen.data import split
from edgegen.data.images import check_memory, image_set, with_heldout
from edgegen.errors import DataError
from edgegen.support.pixels import to_float, to_uint8


def pictures(count: int, *, channels: int = 1) -> np.ndarray:
    """`count` different pictures of 4x6 pixels."""
    return (np.arange(count * 24 * channels, dtype=np.int64) % 251).astype(np.uint8).reshape(count, 4, 6, channels)


def test_float_and_back_is_exact_for_every_value() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1).repeat(3, axis=3)
    x = to_float(images)
    assert x.dtype == torch.float32
    assert x.shape == (2, 3, 8, 16)
    assert (x.min().item(), x.max().item()) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_uint8(x), images)
    np.testing.assert_array_equal(to_uint8(x.numpy()), images)
    reference = images.transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(x.numpy(), reference, atol=1e-7)


def test_channels_are_not_mixed_up() -> None:
    images = np.zeros((2, 4, 6, 3), np.uint8)
    images[0, 1, 2] = (255, 128, 0)
    assert to_float(images)[0, :, 1, 2].tolist() == pytest.approx([1.0, 128 / 127.5 - 1, -1.0], abs=1e-6)


def test_values_beyond_the_range_are_clamped_and_rounded() -> None:
    x = torch.tensor([-3.0, 7.0, 0.0, 1 / 255]).reshape(1, 1, 1, 4).requires_grad_()
    assert to_uint8(x).ravel().tolist() == [0, 255, 128, 128]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_is_no_picture(bad: float) -> None:
    with pytest.raises(DataError, match="not finite"):
        to_uint8(torch.tensor([[[[0.0, bad]]]]))


def test_labels_become_0_to_k_and_keep_their_names() -> None:
    numbers = image_set(pictures(4), np.array([7, 2, 7, 100], np.uint8), source="s")
    assert numbers.labels is not None
    assert (numbers.labels.tolist(), numbers.classes) == ([1, 0, 1, 2], ("2", "7", "100"))
    assert numbers.labels.dtype == np.int64
    named = image_set(pictures(3), np.array([3, 0, 3]), source="s", names=["a", "b", "c", "d"])
    assert named.classes == ("a", "d")
    words = image_set(pictures(4), ["dog", "cat", "dog", "ant"], source="s")
    assert words.labels is not None
    assert (words.labels.tolist(), words.classes, words.num_classes) == ([2, 1, 2, 0], ("ant", "cat", "dog"), 3)
    in_order = image_set(pictures(4), ["10", "9", "x", "1"], source="s")
    assert in_order.classes == ("1", "9", "10", "x")


def test_a_label_beyond_the_names_is_named() -> None:
    with pytest.raises(DataError, match="s: label 4 of image 1 has no name; there are 2 names, for 0 to 1"):
        image_set(pictures(3), np.array([1, 4, 0]), source="s", names=["a", "b"])


def test_the_record_is_frozen() -> None:
    with pytest.raises(AttributeError):
        image_set(pictures(2), None, source="s").source = "t"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (pictures(2)[..., 0], None, r"s: images are uint8 \(2, 4, 6\); needed"),
        (pictures(2).astype(np.int16), None, "s: images are int16"),
        (pictures(1), None, r"s: 1 image\(s\); at least 2"),
        (pictures(0), None, r"s: 0 image\(s\); at least 2"),
        (pictures(3), np.array([0, 1]), "s: 2 labels for 3 images"),
        (pictures(3), np.array([0, -4, 1]), "s: label -4 of image 1 is negative"),
    ],
)
def test_what_is_no_image_set(images: np.ndarray, labels: np.ndarray | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        image_set(images, labels, source="s")


def test_more_than_the_memory_is_refused() -> None:
    check_memory(50_000, (32, 32, 3), source="s")
    with pytest.raises(
        DataError, match=r"s: 1000000 images of 256x256x3 are 183\.1 GiB in memory, more than the limit"
    ):
        check_memory(1_000_000, (256, 256, 3), source="s")


def keys(images: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images]


@pytest.mark.parametrize("holdout", [0.1, 0.25, 0.9])
def test_split_is_disjoint_whole_and_stratified(holdout: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (90, 4, 4, 1), dtype=np.uint8)
    labels = np.repeat([0, 1, 2], [60, 27, 3])
    whole = image_set(images, labels, source="s")
    train, held = split(whole, holdout=holdout, seed=1)
    assert sorted(keys(train.images) + keys(held.images)) == sorted(keys(images))
    assert train.labels is not None
    assert held.labels is not None
    for label, count in ((0, 60), (1, 27), (2, 3)):
        expected = min(max(round(holdout * count), 1), count - 1)
        assert (held.labels == label).sum() == expected
    label_of = dict(zip(keys(images), labels, strict=True))
    for part in (train, held):
        assert [label_of[key] for key in keys(part.images)] == part.labels.tolist()
        assert part.classes == whole.classes


def test_split_depends_on_the_seed_and_on_nothing_else() -> None:
    whole = image_set(pictures(200), None, source="s")
    parts = [split(whole, holdout=0.25, seed=seed)[1].images for seed in (3, 3, 4, 3 + 2**40)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert not np.array_equal(parts[0], parts[2])
    assert not np.array_equal(parts[0], parts[3])
    assert len(parts[0]) == 50


def test_split_of_a_seed_stays_what_it_is() -> None:
    """Golden: a change here changes the held-out images of every recipe."""
    whole = image_set(np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1), None, source="s")
    assert sorted(split(whole, holdout=0.25, seed=0)[1].images.ravel().tolist()) == [2, 3, 4, 15]


@pytest.mark.parametrize("own_test_part", [True, False])
def test_the_first_held_out_images_are_of_all_classes(own_test_part: bool) -> None:
    """Sources are sorted by class, and figures of n images take the first n of the held-out part."""
    labels = np.repeat(np.arange(4), 500)
    images = np.random.default_rng(0).integers(0, 256, (2000, 4, 4, 1), dtype=np.uint8)
    whole = image_set(images, labels, source="s")
    _, held = split(with_heldout(whole, whole) if own_test_part else whole, holdout=0.5, seed=0)
    assert held.labels is not None
    counts = np.bincount(held.labels[:400], minlength=4)
    assert abs(counts - 100).max() < 30  # 3.5 standard deviations of a draw


def test_a_class_with_one_image_cannot_be_split() -> None:
    whole = image_set(pictures(4), ["a", "b", "b", "b"], source="s")
    with pytest.raises(DataError, match="s: class 'a' has a single image, which cannot be both"):
        split(whole, holdout=0.5, seed=0)


def test_a_test_part_of_the_source_is_kept() -> None:
    train = image_set(pictures(6), ["a", "b", "c"] * 2, source="s")
    test = image_set(pictures(2), ["c", "b"], source="s")
    first, held = split(with_heldout(train, test), holdout=0.5, seed=0)
    assert (len(first), len(held), first.heldout) == (6, 2, None)
    assert held.labels is not None
    assert held.labels.tolist() == [2, 1]
    assert held.classes == first.classes == ("a", "b", "c")


def test_parts_that_do_not_fit() -> None:
    train = image_set(pictures(2), ["a", "b"], source="s")
    with pytest.raises(DataError, match="class 'z' is in the test part only"):
        with_heldout(train, image_set(pictures(2), ["a", "z"], source="s"))
    with pytest.raises(DataError, match="the test part has no labels"):
        with_heldout(train, image_set(pictures(2), None, source="s"))
    with pytest.raises(DataError, match=r"differ in \(height, width, channels\): \(4, 6, 1\) .* \(4, 6, 3\)"):
        with_heldout(train, image_set(pictures(2, channels=3), ["a", "b"], source="s"))
