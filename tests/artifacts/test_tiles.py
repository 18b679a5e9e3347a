"""Tiles of a picture against the whole picture: networks of known reach, in PyTorch."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgegen.artifacts.sample_inputs import whole_steps
from edgegen.artifacts.tiles import Assembled, Cuts, assemble
from edgegen.errors import ExportError
from edgegen.support.progress import Silent
from edgegen.types import Signature, TensorSpec

TILE = 32


def signature(scale: Fraction, margin: int = 0) -> Signature:
    size = int(TILE * scale) - margin
    return Signature(
        (TensorSpec("photo", ("batch_size", 3, TILE, TILE), "float32", "image", 0.0, 1.0),),
        (TensorSpec("out_sample", ("batch_size", 3, size, size), "float32", "image", 0.0, 1.0, margin),),
    )


def made(
    network: Callable[[Tensor], Tensor], photo: NDArray[Any], scale: Fraction, *, whole: bool, margin: int = 0
) -> Assembled:
    """By tiles of TILE pixels, or in one piece."""
    own = signature(scale, margin)
    sized = own.resized(*photo.shape[2:], of="photo")

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return network(torch.from_numpy(inputs["photo"])).numpy()

    tile, steps = (sized if whole else own), whole_steps(own, "photo")
    return assemble(
        run, {"photo": photo}, sized, tile=tile, reference="photo", steps=steps, progress=Silent()
    )  # fmt: skip


def photo(height: int, width: int, count: int = 1) -> NDArray[np.float32]:
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image("china.jpg")[100 : 100 + height, 200 : 200 + width]
    return np.repeat(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255, count, axis=0)


def bicubic(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


SIZES = [(32, 32), (33, 32), (63, 32), (200, 32), (401, 64), (90, 20), (9, 4), (10, 3)]


@pytest.mark.parametrize(("length", "size"), SIZES)
@pytest.mark.parametrize("scale", [Fraction(1), Fraction(4), Fraction(3, 2)])
def test_the_weights_of_every_pixel_sum_to_one(length: int, size: int, scale: Fraction) -> None:
    unit = scale.denominator
    length, size = length // unit * unit, size // unit * unit
    cuts = Cuts.of(length, size, unit=unit, output=scale)
    assert all(start % unit == 0 for start in cuts.starts)
    assert (cuts.starts[0], cuts.starts[-1]) == (0, length - size)
    total = np.zeros(int(length * scale))
    for place, share in zip(cuts.outputs(), cuts.weights(), strict=True):
        assert share.min() >= 0
        total[place] += share
    assert np.abs(total - 1).max() < 1e-6


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 95), (100, 71), (32, 200)])
def test_tiles_of_a_network_with_a_short_reach_are_the_whole_picture(height: int, width: int) -> None:
    x = photo(height, width, count=2)
    tiled = made(bicubic, x, Fraction(2), whole=False)
    expected = bicubic(torch.from_numpy(x)).clamp(0, 1).mul(255).round().numpy().transpose(0, 2, 3, 1)
    assert tiled.images.shape == (2, 2 * height, 2 * width, 3)
    assert np.abs(tiled.images.astype(float) - expected).max() <= 1
    assert np.array_equal(tiled.images, made(bicubic, x, Fraction(2), whole=True).images)
    assert tiled.difference < 0.01
    assert (tiled.tiles == 1) == ((height, width) == (TILE, TILE))


def test_tiles_begin_where_a_network_that_halves_the_picture_sees_the_same_pixels() -> None:
    """A mean of 8x8 blocks at their size again: tiles that began elsewhere would show other blocks."""
    x = photo(96, 160)

    def blocks(tensor: Tensor) -> Tensor:
        return functional.interpolate(functional.avg_pool2d(tensor, 8), scale_factor=8, mode="nearest")

    tiled, whole = (made(blocks, x, Fraction(1), whole=whole).images.astype(int) for whole in (False, True))
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(3, 2)])
def test_scales_that_are_no_whole_numbers(scale: Fraction) -> None:
    x = photo(66, 100)

    def resized(tensor: Tensor) -> Tensor:
        return functional.interpolate(tensor, scale_factor=float(scale), mode="bilinear", align_corners=False)

    tiled, whole = (made(resized, x, scale, whole=whole).images.astype(int) for whole in (False, True))
    assert tiled.shape == whole.shape == (1, int(66 * scale), int(100 * scale), 3)
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.parametrize("kernel", [5, 13, 21])  # with 21 a tile of 32 pixels gives an output for 10 of them alone
def test_a_network_without_padding_gives_less_than_its_input(kernel: int) -> None:
    """2 n - 12 pixels for n, or less: the tiles lie where the whole picture has them."""
    x, margin = photo(50, 90), 2 * kernel + 2

    def unpadded(tensor: Tensor) -> Tensor:
        return bicubic(functional.avg_pool2d(tensor, kernel, stride=1))[..., 2:-2, 2:-2]

    tiled, whole = (
        made(unpadded, x, Fraction(2), whole=whole, margin=margin).images.astype(int) for whole in (False, True)
    )
    assert tiled.shape == whole.shape == (1, 100 - margin, 180 - margin, 3)
    assert np.abs(tiled - whole).max() <= 1


def test_a_network_that_looks_at_the_whole_picture_is_noticed() -> None:
    def normed(tensor: Tensor) -> Tensor:
        return 0.5 + 0.2 * functional.instance_norm(tensor)

    assert made(normed, photo(64, 96), Fraction(1), whole=False).difference > 10


def test_an_image_of_another_size_than_the_signature_says() -> None:
    with pytest.raises(ExportError, match=r"it gives 3x32x32, and its signature says 3x64x64"):
        made(lambda tensor: tensor, photo(32, 32), Fraction(2), whole=False)
