"""What a condition is: classes, small images or none, row by row."""

import torch

from edgegen.flow.condition import condition_spec, enlarged, kinds, made_up, repeated, unpacked, upscale_of
from edgegen.types import Signature

CLASSES, IMAGES = torch.tensor([2, 0, 2]), torch.randint(256, (3, 3, 4, 6), dtype=torch.uint8)


def test_all_rows_and_all_rows_again() -> None:
    assert repeated(CLASSES, 2).tolist() == [2, 0, 2, 2, 0, 2]
    assert torch.equal(repeated(IMAGES, 2), torch.stack([*IMAGES, *IMAGES]))
    assert repeated(None, 2) is None


def test_no_two_images_are_of_one_kind() -> None:
    x = torch.zeros(3, 3, 8, 12)
    assert [kinds(condition, x).tolist() for condition in (None, CLASSES, IMAGES)] == [[0, 0, 0], [2, 0, 2], [0, 1, 2]]


def test_stored_images_become_floats_and_classes_stay() -> None:
    assert unpacked(CLASSES) is CLASSES
    assert torch.equal(unpacked(IMAGES), IMAGES.float() / 127.5 - 1)


def test_an_enlarged_image_has_each_pixel_as_a_block() -> None:
    images = unpacked(IMAGES)
    assert torch.equal(enlarged(images, 3)[:, :, 1::3, 2::3], images)
    assert torch.equal(enlarged(images, 3)[:, :, ::3, ::3], images)


def test_what_a_signature_says_of_it() -> None:
    plain = Signature.of(channels=3, size=(8, 12), num_classes=0)
    of_images = Signature.of(channels=3, size=(8, 12), num_classes=0, upscale=2)
    of_classes = Signature.of(channels=1, size=8, num_classes=10)
    assert [upscale_of(each) for each in (plain, of_images, of_classes)] == [None, 2, None]
    assert [made_up(plain, 2), made_up(of_images, 2).shape, made_up(of_classes, 2).tolist()] == [
        None,
        (2, 3, 4, 6),
        [0, 1],
    ]
    assert condition_spec(of_images).role == "image"
    assert (condition_spec(of_images).low, condition_spec(of_images).high) == (-1.0, 1.0)
    wider = of_images.resized(16, 12)
    assert condition_spec(wider).shape[1:] == (3, 8, 6)
